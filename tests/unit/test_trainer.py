"""Values are born alike, norms obey their constraint, and what does not fit is refused.

What every learner keeps to is in `test_learners`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from models.errors import SchemaMismatch
from models.kernels import CONSTRAINTS, reference
from models.offset import State, genesis
from models.priors import normals
from models.schema import Schema
from models.trainer import TrainerSettings, train
from models.types import Batch

Draw = Callable[..., Batch]


@pytest.fixture
def start(schema: Schema) -> State:
    """The state before the first event."""
    return genesis(schema, 0.2, 1)


def test_new_values_start_from_their_hash_and_the_seed() -> None:
    """A value's first vector is the same in whatever chunk it first appears; seeds differ."""
    draws = normals(np.array([5, -7], np.int64), 4, 1)
    np.testing.assert_array_equal(draws[1:], normals(np.array([-7], np.int64), 4, 1))
    assert (draws != normals(np.array([5, -7], np.int64), 4, 2)).all()


def test_draws_are_standard_normal() -> None:
    """Mean 0, variance 1, no correlation between positions."""
    draws = normals(np.arange(20_000), 4, 3)
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), np.eye(4), atol=0.05)


def test_rows_remember_their_feature_and_last_touch(
    schema: Schema, start: State, draw: Draw
) -> None:
    """Each value knows the feature it belongs to and the time of the last event that had it."""
    events = draw(80)
    user = train(start, events, schema, TrainerSettings.of(schema)).state.user
    for row, key in enumerate(user.keys):
        where = np.flatnonzero(events.user.ids == key)
        assert user.feature[row] == where[0] % 3
        assert user.touched_ms[row] == events.time_ms[where[-1] // 3]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_constraints_bound_the_norms(
    constraint: str, schema: Schema, start: State, draw: Draw
) -> None:
    """Tight radii are kept by projection, approached by the duals, ignored by the others."""
    radius = 0.25
    settings = replace(TrainerSettings.of(schema), user_radius=radius, constraint=constraint)
    state = start
    for seed in range(5):
        state = train(state, draw(300, seed), schema, settings, reference).state
    largest = state.user.norms().max() / radius
    bounds = {"dual": (0, 1.5), "augmented": (0, 1.2), "projection": (0, 1.001)}
    bounds["clipping"] = (1.0, 9)
    low, high = bounds.get(constraint, (1.5, 9))
    assert low <= largest <= high


def test_an_absurd_step_ruins_predictions(schema: Schema, start: State, draw: Draw) -> None:
    """A step size far too large does harm that anyone can see: it is not silently tamed."""
    settings = replace(TrainerSettings.of(schema), step_size=1e4)
    state = train(start, draw(300), schema, settings).state
    assert not abs(state.bias) < 20


def test_a_state_of_another_schema_is_refused(schema: Schema, start: State, draw: Draw) -> None:
    """Parameters of another schema mean something else."""
    with pytest.raises(SchemaMismatch, match="other"):
        train(replace(start, schema_hash="other"), draw(1), schema, TrainerSettings.of(schema))


def test_duals_of_what_a_chunk_has_not_stay(schema: Schema, start: State, draw: Draw) -> None:
    """μ changes after a chunk for the values that it had, and for no other."""
    settings = replace(TrainerSettings.of(schema), user_radius=0.05, constraint="dual")
    state = train(start, draw(300), schema, settings).state
    after = train(state, draw(1, seed=1), schema, settings).state
    assert (after.user.dual != state.user.dual).sum() == 3
