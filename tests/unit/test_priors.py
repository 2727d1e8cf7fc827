"""Variances of main effects are learned from the data, or given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.offset import Table
from models.priors import FIRST_VARIANCE, VARIANCE_RANGE, first_rows, in_force, learned


def spread(deviations: tuple[float, ...], values: int = 400, events: float = 200.0) -> Table:
    """Well-known values whose main effects have the given deviations, a feature each."""
    generator = np.random.default_rng(1)
    feature = np.repeat(np.arange(len(deviations)), values)
    table = first_rows(
        np.arange(len(feature)),
        feature,
        np.zeros((len(feature), 2)),
        main_variance=np.full(len(deviations), FIRST_VARIANCE),
        latent_variance=1.0,
        accumulates_precision=True,
    )
    main = generator.normal(0, np.array(deviations)[feature]).astype(np.float32)
    return replace(table, main=main, main_precision=table.main_precision + np.float32(events))


def test_each_feature_finds_its_own_variance() -> None:
    """Features whose values spread widely and narrowly end with wide and narrow priors."""
    table = learned(spread((1.0, 0.1)), (None, None))
    np.testing.assert_allclose(in_force(table, (None, None)), [1.0, 0.01], rtol=0.3)


def test_a_given_variance_stays() -> None:
    """What the schema sets is not learned."""
    table = learned(spread((1.0, 1.0)), (0.05, None))
    assert in_force(table, (0.05, None)) == pytest.approx([0.05, 1.0], rel=0.3)


def test_without_evidence_the_first_guess_stands() -> None:
    """Values that no event has touched say nothing about their variance."""
    table = learned(spread((0.0,), events=0.0), (None,))
    assert in_force(table, (None,)) == pytest.approx([FIRST_VARIANCE])
    np.testing.assert_array_equal(table.main, 0)


def test_what_the_data_said_stays() -> None:
    """A new prior changes π and w, but not π·w, nor the data's part of π."""
    before = spread((1.0,))
    after = learned(before, (None,))
    np.testing.assert_allclose(
        after.main * after.main_precision, before.main * before.main_precision, rtol=1e-4
    )
    np.testing.assert_allclose(
        after.main_precision - after.main_prior,
        before.main_precision - before.main_prior,
        rtol=1e-4,
    )


def test_variances_stay_in_their_range() -> None:
    """No evidence makes a prior absurd."""
    found = in_force(learned(spread((0.0, 50.0)), (None, None)), (None, None))
    np.testing.assert_allclose(found, VARIANCE_RANGE, rtol=1e-5)
