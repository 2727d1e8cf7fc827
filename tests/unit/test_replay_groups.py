"""A replay's figures by age of the ad and by bid, against the same figures worked out plainly."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.replay.groups import AGES, DAY_MS, ages, by_age, by_bid, deciles
from jobs.replay.predictions import Scored
from jobs.replay.quality import holds, measured, paired
from jobs.replay.report import Quality

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def scored() -> Scored:
    """3,000 events of three days: one ad with most of them, one that comes late, some rare ones."""
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, 3 * DAY_MS, 3_000))
    ads = random.choice([5, 9, 70, 71, 72], 3_000, p=[0.8, 0.17, 0.01, 0.01, 0.01])
    ads[(ads == 9) & (times < DAY_MS)] = 5
    model = random.uniform(0.05, 0.5, 3_000)
    label = (random.random(3_000) < model).astype(np.float64)
    plain = np.clip(model + random.normal(0, 0.03, 3_000), 0.01, 0.99)
    return Scored(times, ads, label, model, plain, np.full(3_000, 0.3), ())


def _same(found: Quality, predicted: list[float], label: list[float]) -> None:
    """The figures of `found` are those of these events, event by event, pair by pair."""
    clicks = [p for p, y in zip(predicted, label, strict=True) if y]
    others = [p for p, y in zip(predicted, label, strict=True) if not y]
    assert (found.events, found.clicks) == (len(label), len(clicks))
    assert found.predicted_clicks == pytest.approx(sum(predicted))
    losses = [-math.log(p) for p in clicks] + [-math.log(1 - p) for p in others]
    assert found.log_loss == pytest.approx(sum(losses) / len(label))
    won = sum((a > b) + 0.5 * (a == b) for a in clicks for b in others)
    assert found.auc == pytest.approx(won / (len(clicks) * len(others)))
    assert found.calibration == pytest.approx(sum(predicted) / len(clicks))
    error = math.sqrt(sum(p * (1 - p) for p in predicted)) / sum(predicted)
    assert found.calibration_error == pytest.approx(error)
    off = abs(sum(predicted) / len(clicks) - 1)
    assert found.calibration_holds == (off <= 0.03 or off <= 2 * error)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=60), st.integers(1, 40))
def test_an_age_is_what_counting_says(steps: list[tuple[int, int]], often: int) -> None:
    """Impression by impression, with a count and a first time for each ad."""
    ad_id = np.repeat(np.array([ad for ad, _ in steps], np.int64), often)
    hours = np.cumsum([hours for _, hours in steps], dtype=np.int64)
    time_ms = np.repeat(hours * HOUR_MS, often)
    shown: dict[int, int] = {}
    first: dict[int, int] = {}
    wanted = []
    for ad, time in zip(ad_id.tolist(), time_ms.tolist(), strict=True):
        since = time - first.setdefault(ad, time)
        before = shown.get(ad, 0)
        wanted.append(0 if before < 100 else 1 if since < DAY_MS else 2)
        shown[ad] = before + 1
    assert ages(time_ms, ad_id).tolist() == wanted


def test_the_figures_of_each_age(scored: Scored) -> None:
    """Model and main effects alike, over exactly the impressions of that age."""
    age = ages(scored.time_ms, scored.ad_id)
    groups = by_age(scored, seed=1)
    assert [group.age for group in groups] == list(AGES)
    for i, group in enumerate(groups):
        member = age == i
        label = scored.label[member].tolist()
        _same(group.model, scored.model[member].tolist(), label)
        _same(group.main_effects, scored.main_effects[member].tolist(), label)
        difference = group.model.log_loss - group.main_effects.log_loss
        assert group.log_loss_minus_main_effects == pytest.approx(difference)
    assert sum(group.model.events for group in groups) == len(scored)


def test_an_age_that_does_not_occur_is_left_out() -> None:
    """A short log knows only first impressions."""
    half = np.full(5, 0.5)
    ids = np.arange(5)
    (group,) = by_age(Scored(ids, ids, np.ones(5), half, half, half, ()), seed=1)
    assert group.age == "first_100_impressions"
    assert group.log_loss_minus_main_effects_interval is None


@given(st.lists(st.none() | st.integers(0, 30), max_size=80))
def test_deciles_are_tenths_and_never_part_equal_bids(bids: list[int | None]) -> None:
    """A higher bid is never in a lower tenth; a tenth without ties over its edge is a tenth."""
    found = deciles(np.array([np.nan if bid is None else bid for bid in bids]))
    assert [tenth < 0 for tenth in found] == [bid is None for bid in bids]
    known = sorted((bid, tenth) for bid, tenth in zip(bids, found, strict=True) if bid is not None)
    assert all(a[1] <= b[1] for a, b in pairwise(known))
    assert len({tenth for _, tenth in known}) <= 10
    assert all((a[0] == b[0]) <= (a[1] == b[1]) for a, b in pairwise(known))


def test_distinct_bids_make_ten_equal_groups() -> None:
    """A hundred bids, ten in each."""
    bids = np.random.default_rng(2).permutation(100).astype(np.float64)
    assert np.bincount(deciles(bids)).tolist() == [10] * 10


def test_the_figures_of_each_bid(scored: Scored) -> None:
    """Each group holds the events between its bounds; those without a bid are in none."""
    bids = np.random.default_rng(3).integers(1, 400, len(scored)).astype(np.float64) * 1000
    bids[::7] = np.nan
    groups = by_bid(scored, bids, seed=1)
    assert len(groups) == 10
    for group in groups:
        member = (bids >= group.low_micros) & (bids <= group.high_micros)
        _same(group.model, scored.model[member].tolist(), scored.label[member].tolist())
    assert sum(group.model.events for group in groups) == int(np.isfinite(bids).sum())


def test_a_log_without_bids_in_its_column_has_no_groups(scored: Scored) -> None:
    """The column is there and empty."""
    assert by_bid(scored, np.full(len(scored), np.nan), seed=1) == ()


@pytest.mark.parametrize(
    ("ratio", "error", "expected"),
    [
        (1.0, 0.0, True),
        (1.029, 0.001, True),
        (0.971, 0.001, True),
        (1.05, 0.026, True),
        (0.95, 0.026, True),
        (1.05, 0.024, False),
        (0.95, 0.024, False),
    ],
)
def test_a_calibration_holds(ratio: float, error: float, expected: bool) -> None:
    """Within 0.97–1.03, however precise, or within two standard errors of 1, however far."""
    assert holds(ratio, error) is expected


@pytest.mark.parametrize(("clicks", "others"), [(9, 500), (500, 9)])
def test_few_of_either_label_have_no_interval(clicks: int, others: int) -> None:
    """Nine clicks say next to nothing of how far chance reaches; nor do nine others."""
    label = np.repeat([1.0, 0.0], [clicks, others])
    found = measured(np.linspace(0.1, 0.9, len(label)), label, seed=1)
    assert found.intervals.auc is found.intervals.log_loss is found.intervals.calibration is None
    more = np.append(label, [1.0, 0.0])
    assert measured(np.linspace(0.1, 0.9, len(more)), more, seed=1).intervals.auc is not None


def test_no_click_leaves_calibration_open() -> None:
    """Neither held nor broken, and no order either."""
    found = measured(np.full(20, 0.01), np.zeros(20), seed=1)
    assert (found.auc, found.calibration, found.calibration_holds) == (None, None, None)
    assert found.predicted_clicks == pytest.approx(0.2)


def test_a_paired_difference_by_hand() -> None:
    """Mean and standard error of the differences of log losses, event by event."""
    ours, theirs, label = np.array([0.8, 0.4]), np.array([0.5, 0.5]), np.array([1.0, 0.0])
    each = [math.log(0.5) - math.log(0.8), math.log(0.5) - math.log(0.6)]
    mean = sum(each) / 2
    reach = 1.96 * abs(each[0] - each[1]) / 2 / math.sqrt(2)
    found, (low, high) = paired(ours, theirs, label)
    assert found == pytest.approx(mean)
    assert (low, high) == pytest.approx((mean - reach, mean + reach))
