"""AUC, log loss and calibration are what their definitions say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.metrics import auc, bootstrap, calibration, calibration_error, log_loss

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
