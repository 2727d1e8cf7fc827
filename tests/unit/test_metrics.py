"""AUC, log loss and calibration are what their definitions say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.metrics import (
    auc,
    auc_of_counts,
    bootstrap,
    calibration,
    calibration_error,
    levels,
    log_loss,
    losses,
)

EVENTS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)


@given(EVENTS)
def test_auc_is_the_share_of_ordered_pairs(events: list[tuple[int, bool]]) -> None:
    """A click above a non-click counts one, a tie one half; without both it is undefined."""
    clicks = [p for p, label in events if label]
    others = [p for p, label in events if not label]
    found = auc([p / 7 for p, _ in events], [label for _, label in events])
    if not clicks or not others:
        assert math.isnan(found)
        return
    won = sum((a > b) + 0.5 * (a == b) for a in clicks for b in others)
    assert found == pytest.approx(won / (len(clicks) * len(others)))


def test_log_loss_by_hand() -> None:
    """−log p of a click, −log(1 − p) of none, averaged."""
    expected = -(math.log(0.8) + math.log(0.7)) / 2
    assert log_loss([0.8, 0.3], [1, 0]) == pytest.approx(expected)


def test_a_certain_mistake_is_finite() -> None:
    """Predicting exactly 0 for a click costs much, not infinitely much."""
    assert 20 < log_loss([0.0], [1]) < 50


def test_calibration_by_hand() -> None:
    """Predicted over observed clicks."""
    assert calibration([0.5, 0.25, 0.25], [1, 0, 1]) == pytest.approx(0.5)


def test_calibration_error_matches_simulation() -> None:
    """The standard error is the spread of calibration when predictions are right."""
    generator = np.random.default_rng(1)
    p = generator.uniform(0.02, 0.1, 4000)
    drawn = [(generator.random(4000) < p).sum() / p.sum() for _ in range(400)]
    assert calibration_error(p) == pytest.approx(np.std(drawn), rel=0.15)


def test_bootstrap_covers_the_truth() -> None:
    """Intervals hold the value, have the width that theory gives, and repeat for a seed."""
    generator = np.random.default_rng(2)
    p = generator.uniform(0.1, 0.5, 3000)
    label = generator.random(3000) < p
    found = bootstrap(p, label, seed=5)
    assert found == bootstrap(p, label, seed=5)
    each = -(label * np.log(p) + (~label) * np.log1p(-p))
    interval = found["log_loss"]
    assert interval.low < interval.value < interval.high
    width = 2 * 1.96 * each.std() / np.sqrt(3000)
    assert interval.high - interval.low == pytest.approx(width, rel=0.25)
    assert found["auc"].low < auc(p, label) < found["auc"].high


@given(EVENTS, st.integers(1, 8))
def test_levels_keep_the_order_and_the_ties(events: list[tuple[int, bool]], most: int) -> None:
    """Levels never rise against the predictions, equal predictions share one, none is empty."""
    predicted = np.array([p for p, _ in events])
    found = levels(predicted, [label for _, label in events], most)
    order = np.argsort(predicted, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)
    assert np.all(np.diff(found[order])[np.diff(predicted[order]) == 0] == 0)
    assert np.unique(found).tolist() == list(range(found.max() + 1))


def test_few_events_have_a_level_for_each_prediction() -> None:
    """So AUC over the levels of a short log is the exact one."""
    generator = np.random.default_rng(3)
    p = np.round(generator.random(900), 2)
    label = generator.random(900) < p
    found = levels(p, label)
    assert found.max() + 1 == len(np.unique(p))
    counts = (np.bincount(found[which], minlength=found.max() + 1) for which in (label, ~label))
    assert float(auc_of_counts(*counts)) == pytest.approx(auc(p, label), abs=1e-12)


@pytest.mark.parametrize("rate", [0.5, 0.01])
def test_levels_of_many_events_are_few_and_nearly_exact(rate: float) -> None:
    """Of 40,000 events at most 512 levels, and AUC over them is off by less than 1/10,000."""
    generator = np.random.default_rng(4)
    score = generator.normal(math.log(rate / (1 - rate)), 1.0, 40_000)
    p = 1 / (1 + np.exp(-score))
    label = generator.random(40_000) < p
    found = levels(p, label, 256)
    assert found.max() < 513
    counts = (np.bincount(found[which], minlength=found.max() + 1) for which in (label, ~label))
    assert abs(float(auc_of_counts(*counts)) - auc(p, label)) < 1e-4


def test_bootstrap_by_level_is_the_bootstrap_by_event() -> None:
    """Intervals from counting each event a Poisson(1) number of times are the same but for luck."""
    generator = np.random.default_rng(5)
    p = 1 / (1 + np.exp(-generator.normal(-2, 1.2, 3000)))
    label = generator.random(3000) < p
    drawn = []
    for _ in range(1200):
        again = np.repeat(np.arange(3000), generator.poisson(1.0, 3000))
        q, y = p[again], label[again]
        drawn.append((auc(q, y), losses(q, y).mean(), q.sum() / y.sum()))
    wanted = np.percentile(drawn, [2.5, 97.5], axis=0).T
    found = bootstrap(p, label, seed=1, resamples=4000)
    for (low, high), interval in zip(wanted, found.values(), strict=True):
        assert interval.low == pytest.approx(low, abs=0.1 * (high - low))
        assert interval.high == pytest.approx(high, abs=0.1 * (high - low))


def test_bootstrap_without_a_click_has_no_auc() -> None:
    """What no resample defines has no bounds; log loss has."""
    found = bootstrap([0.1, 0.2, 0.3], [0, 0, 0], seed=1)
    assert math.isnan(found["auc"].low)
    assert math.isnan(found["calibration"].high)
    assert found["log_loss"].low < found["log_loss"].high
