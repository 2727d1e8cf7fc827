"""Variances of main effects are learned from the data, or given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.offset import FIRST_VARIANCE, Table
from models.priors import VARIANCE_RANGE, first_rows, in_force, learned


def spread(deviations: tuple[float, ...], values: int = 400, events: float = 200.0) -> Table:
    """Well-known values whose main effects have the given deviations, a feature each."""
    generator = np.random.default_rng(1)
    feature = np.repeat(np.arange(len(deviations)), values)
    table = first_rows(np.arange(len(feature)), feature, np.zeros((len(feature), 2)))
    main = generator.normal(0, np.array(deviations)[feature]).astype(np.float32)
    return replace(table, main=main, main_evidence=table.main_evidence + np.float32(events))


def first(features: int) -> np.ndarray:
    """The first guess of so many features."""
    return np.full(features, FIRST_VARIANCE)


def test_each_feature_finds_its_own_variance() -> None:
    """Features whose values spread widely and narrowly end with wide and narrow priors."""
    _, found = learned(spread((1.0, 0.1)), first(2), (None, None))
    np.testing.assert_allclose(found, [1.0, 0.01], rtol=0.3)


def test_a_given_variance_stays() -> None:
    """What the schema sets is not learned."""
    _, found = learned(spread((1.0, 1.0)), first(2), (0.05, None))
    assert found == pytest.approx([0.05, 1.0], rel=0.3)
    assert in_force(found, (None, 0.7)) == pytest.approx([0.05, 0.7])


def test_without_evidence_the_first_guess_stands() -> None:
    """Values that no event has touched say nothing about their variance."""
    table, found = learned(spread((0.0,), events=0.0), first(1), (None,))
    assert found == pytest.approx(first(1))
    np.testing.assert_array_equal(table.main, 0)


def test_what_the_data_said_stays() -> None:
    """A new prior changes π and w, but not π·w, nor the evidence."""
    before = spread((1.0,))
    after, variance = learned(before, first(1), (None,))
    assert variance[0] > 2 * FIRST_VARIANCE
    np.testing.assert_allclose(
        after.main * (after.main_evidence + 1 / variance[0]),
        before.main * (before.main_evidence + 1 / FIRST_VARIANCE),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(after.main_evidence, before.main_evidence)


def test_variances_stay_in_their_range() -> None:
    """No evidence makes a prior absurd."""
    _, found = learned(spread((0.0, 50.0)), first(2), (None, None))
    np.testing.assert_allclose(found, VARIANCE_RANGE, rtol=1e-5)
