"""Training is pure, in order and reproducible; it learns; constraints hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest

from models.errors import SchemaMismatch
from models.kernels import CONSTRAINTS, STEPS, reference
from models.metrics import log_loss
from models.offset import State, Table, genesis
from models.priors import normals
from models.schema import Schema
from models.trainer import TrainerSettings, train
from models.types import Batch, empty_batch

Draw = Callable[..., Batch]


@pytest.fixture
def start(schema: Schema) -> State:
    """The state before the first event."""
    return genesis(schema, 0.2, 1)


def equal(one: State, other: State) -> bool:
    """Whether two states hold the same parameters."""
    tables = ((one.user, other.user), (one.ad, other.ad))
    return (one.bias, one.bias_precision) == (other.bias, other.bias_precision) and all(
        np.array_equal(getattr(a, item.name), getattr(b, item.name))
        for a, b in tables
        for item in fields(Table)
    )


def test_training_leaves_its_input_alone(schema: Schema, start: State, draw: Draw) -> None:
    """The state that is passed in is what it was, and again gives the same result."""
    settings = TrainerSettings.of(schema)
    before = train(start, draw(100), schema, settings).state
    kept = replace(before, user=before.user.copy(), ad=before.ad.copy())
    first = train(before, draw(100, seed=1), schema, settings)
    second = train(before, draw(100, seed=1), schema, settings)
    assert equal(before, kept)
    assert equal(first.state, second.state)
    np.testing.assert_array_equal(first.predicted, second.predicted)


def test_each_event_is_predicted_before_it_is_learned(
    schema: Schema, start: State, draw: Draw
) -> None:
    """Predictions do not depend on an event's own label, nor on what comes after it."""
    settings, events = TrainerSettings.of(schema), draw(50)
    flipped = events.label.copy()
    flipped[30:] = 1 - flipped[30:]
    one = train(start, events, schema, settings).predicted
    other = train(start, replace(events, label=flipped), schema, settings).predicted
    np.testing.assert_array_equal(one[:31], other[:31])
    assert (one[31:] != other[31:]).any()


@pytest.mark.parametrize("step", STEPS)
def test_every_step_learns(step: str, schema: Schema, start: State, draw: Draw) -> None:
    """On later events each step rule beats the rate that it started with."""
    settings = replace(TrainerSettings.of(schema), step=step)
    state = train(start, draw(1500), schema, settings).state
    events = draw(1000, seed=1)
    predicted = train(state, events, schema, settings).predicted
    constant = np.full(len(events), events.label.mean())
    assert log_loss(predicted, events.label) < log_loss(constant, events.label) - 0.005


def test_kernels_agree_over_chunks(schema: Schema, start: State, draw: Draw) -> None:
    """The reference kernel trains to the same state, duals and learned variances included."""
    settings = replace(TrainerSettings.of(schema), user_radius=0.3, ad_radius=0.02)
    fast = slow = start
    for seed in range(3):
        fast = train(fast, draw(60, seed), schema, settings).state
        slow = train(slow, draw(60, seed), schema, settings, kernel=reference).state
    for item in fields(Table):
        for side in (fast.user, slow.user), (fast.ad, slow.ad):
            one, other = (getattr(table, item.name) for table in side)
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-4, err_msg=item.name)
    assert fast.user.dual.max() > 0


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
    """Tight radii are kept by projection, approached by the duals, ignored without constraint."""
    radius = 0.25
    settings = replace(TrainerSettings.of(schema), user_radius=radius, constraint=constraint)
    state = start
    for seed in range(5):
        state = train(state, draw(300, seed), schema, settings).state
    largest = state.user.norms().max() / radius
    bounds = {"none": (1.5, 9), "dual": (0, 1.5), "augmented": (0, 1.2), "projection": (0, 1.001)}
    assert bounds[constraint][0] <= largest <= bounds[constraint][1]


def test_an_absurd_step_ruins_predictions(schema: Schema, start: State, draw: Draw) -> None:
    """A step size far too large does harm that anyone can see: it is not silently tamed."""
    settings = replace(TrainerSettings.of(schema), step_size=1e4)
    state = train(start, draw(300), schema, settings).state
    assert not abs(state.bias) < 20


def test_nothing_to_learn_changes_nothing(schema: Schema, start: State, draw: Draw) -> None:
    """An empty chunk leaves the state as it is."""
    settings = TrainerSettings.of(schema)
    state = train(start, draw(100), schema, settings).state
    assert equal(state, train(state, empty_batch(3, 2), schema, settings).state)


def test_a_state_of_another_schema_is_refused(schema: Schema, start: State, draw: Draw) -> None:
    """Parameters of another schema mean something else."""
    with pytest.raises(SchemaMismatch, match="other"):
        train(replace(start, schema_hash="other"), draw(1), schema, TrainerSettings.of(schema))
