"""Models frozen on the way through a replay, and the curves they are drawn in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from jobs.logfile import Log
from jobs.replay.curves import Windows
from jobs.replay.frozen import FrozenModels, frozen_reports
from jobs.replay.line import Line
from jobs.replay.predictions import Scored
from jobs.replay.report import ReplayReport
from jobs.replay.run import replay
from models.features import load_schema
from models.metrics import auc, calibration, log_loss
from models.offset import sigmoid
from models.trainer import TrainerSettings
from models.types import Float64s

DATA = Path(__file__).parents[1] / "data"
SCHEMA = load_schema(DATA / "features.toml")
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def report() -> ReplayReport:
    """The small log in chunks of four hours."""
    with Log(DATA / "log.csv", SCHEMA, "clicked") as log:
        return replay(log, SCHEMA, "4h", seed=SCHEMA.model.seed)


@pytest.fixture(scope="module")
def by_hand() -> list[tuple[int, Float64s, Float64s, Float64s]]:
    """For a fifth and a half of the time: the first event after it, labels, frozen, updated."""
    line = Line(SCHEMA, TrainerSettings.of(SCHEMA))
    kept, models = [], []
    with Log(DATA / "log.csv", SCHEMA, "clicked") as log:
        for start_ms, batch in log.chunks(4 * HOUR_MS):
            models.append((start_ms, line.incumbent.model))
            outcome, _ = line.advance(batch, start_ms + 4 * HOUR_MS)
            kept.append((start_ms, batch, outcome.predicted))
    first, last = int(kept[0][1].time_ms[0]), int(kept[-1][1].time_ms[-1])
    made = []
    for share in (0.2, 0.5):
        due = first + share * (last - first)
        start, model = next((start, model) for start, model in models if start >= due)
        after = [(batch, ours) for began, batch, ours in kept if began >= start]
        label = np.concatenate([batch.label for batch, _ in after]).astype(np.float64)
        theirs = np.concatenate([sigmoid(model.score(b.user, b.ad)) for b, _ in after])
        ours = np.concatenate([predicted for _, predicted in after])
        made.append((int(after[0][0].time_ms[0]), label, theirs, ours))
    return made


def test_a_frozen_model_is_the_one_that_served_then(
    report: ReplayReport, by_hand: list[tuple[int, Float64s, Float64s, Float64s]]
) -> None:
    """Its figures are those of that snapshot's model on every later event, unchanged to the end."""
    assert [item.share for item in report.frozen] == [0.2, 0.5]
    for item, (since_ms, label, theirs, ours) in zip(report.frozen, by_hand, strict=True):
        told = np.datetime64(item.since.removesuffix("Z")).astype("datetime64[ms]").astype(int)
        assert told == since_ms // 1000 * 1000
        assert (item.model.events, item.updated.events) == (len(label), len(label))
        assert item.model.log_loss == pytest.approx(log_loss(theirs, label))
        assert item.model.auc == pytest.approx(auc(theirs, label))
        assert item.updated.log_loss == pytest.approx(log_loss(ours, label))
        difference = log_loss(theirs, label) - log_loss(ours, label)
        assert item.log_loss_minus_updated == pytest.approx(difference)
        low, high = item.log_loss_minus_updated_interval or (0.0, 0.0)
        assert low < difference < high


def test_the_curves_of_a_frozen_model_begin_after_its_freeze(
    report: ReplayReport, by_hand: list[tuple[int, Float64s, Float64s, Float64s]]
) -> None:
    """No window with an event before it; from the first whole one on each has its figures."""
    curves = report.curves
    for item, (_, label, theirs, _) in zip(report.frozen, by_hand, strict=True):
        assert len(item.auc) == len(item.log_loss) == len(curves.time)
        blank = item.log_loss.index(next(x for x in item.log_loss if x is not None))
        assert None not in item.log_loss[blank:]
        last = slice(len(label) - curves.window, None)
        assert item.log_loss[-1] == pytest.approx(log_loss(theirs[last], label[last]))
        assert item.auc[-1] == pytest.approx(auc(theirs[last], label[last]))
        windows = Windows.over(report.total.events)
        freeze = report.total.events - len(label)
        assert windows.ends[blank] - windows.size >= freeze > windows.ends[blank - 1] - windows.size


def test_a_model_is_frozen_once() -> None:
    """The first one that serves when its share has passed stays, whatever comes after."""
    line = Line(SCHEMA, TrainerSettings.of(SCHEMA))
    frozen = FrozenModels(0, 10 * HOUR_MS)
    with Log(DATA / "log.csv", SCHEMA, "clicked") as log:
        batches = [batch for _, batch in log.chunks(12 * HOUR_MS)]
    early = line.incumbent.model
    frozen.freeze(1 * HOUR_MS, early)
    assert all(np.isnan(each).all() for each in frozen.predict(batches[0]))
    line.advance(batches[0], HOUR_MS)
    later = line.incumbent.model
    for now_ms, model in ((2 * HOUR_MS, early), (4 * HOUR_MS, later), (5 * HOUR_MS, later)):
        frozen.freeze(now_ms, model)
    for each, model in zip(frozen.predict(batches[1]), (early, later), strict=True):
        wanted = sigmoid(model.score(batches[1].user, batches[1].ad))
        np.testing.assert_array_equal(each, wanted)


def test_what_no_event_came_after_is_left_out() -> None:
    """A log of one chunk has nothing to freeze a model for."""
    half, never = np.full(20, 0.5), np.full(20, np.nan)
    scored = Scored(np.arange(20), np.arange(20), half.round(), half, half, half, (never, never))
    assert frozen_reports(scored, Windows.over(20), seed=1) == ()


def test_curves_are_the_figures_of_their_windows() -> None:
    """Each window's events by themselves; undefined where they have no click."""
    random = np.random.default_rng(1)
    predicted = random.uniform(0.05, 0.6, 3_000)
    label = (random.random(3_000) < predicted).astype(np.float64)
    label[:700] = 0.0
    windows = Windows.over(3_000)
    assert (windows.size, len(windows)) == (500, 240)
    drawn = zip(
        windows.ends,
        windows.log_loss(predicted, label),
        windows.auc(predicted, label),
        windows.calibration(predicted, label),
        strict=True,
    )
    undefined = 0
    for end, loss, order, ratio in drawn:
        p, y = predicted[end - 500 : end], label[end - 500 : end]
        assert loss == pytest.approx(log_loss(p, y))
        wanted = auc(p, y), calibration(p, y)
        for found, value in zip((order, ratio), wanted, strict=True):
            assert (found is None) if math.isnan(value) else found == pytest.approx(value)
        undefined += order is None
    assert undefined > 0


@pytest.mark.parametrize("events", [1, 499, 500, 501, 20_001])
def test_windows_end_with_the_log(events: int) -> None:
    """However long the log: within it, each once, the last one at its end."""
    windows = Windows.over(events)
    assert windows.ends[-1] == events
    assert windows.ends[0] == windows.size
    assert np.all(np.diff(windows.ends) > 0)
