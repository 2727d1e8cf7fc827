"""Interactions count as far as the data says: their variances, and the weight they serve with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.constraints import Radii, project
from models.interactions import (
    FIRST_EFFECT,
    MOST_CERTAIN,
    Interactions,
    by_entry,
    first,
    groups,
    learned,
    weighed,
)
from models.kernels import Shape
from models.offset import Table, genesis
from models.priors import first_rows
from models.schema import Schema
from models.trainer import Trained, TrainerSettings, train
from models.types import Batch, Float32s

Draw = Callable[..., Batch]

SHAPE = Shape(user_features=3, ad_features=2, overlap=2, alone=4)


def ad_table(rows: int) -> Table:
    """Ad values without evidence, features in turn."""
    features = np.arange(rows) % SHAPE.ad_features
    return first_rows(np.arange(rows), features, np.zeros((rows, SHAPE.dimensions)))


def test_groups_are_all_columns_once() -> None:
    """The pairs' blocks, then one block for each user feature by itself."""
    columns = [column for group in groups(SHAPE) for column in range(SHAPE.dimensions)[group]]
    assert columns == list(range(SHAPE.dimensions))
    assert len(groups(SHAPE)) == 1 + SHAPE.user_features


def test_evidence_widens_its_own_group_alone() -> None:
    """Large, well-known entries of one ad feature in one block raise that variance, no other."""
    table, columns = ad_table(40), groups(SHAPE)[2]
    told = table.feature == 1
    table.latent[told, columns] = np.random.default_rng(1).normal(0, 0.5, (20, 4))
    table.latent_evidence[told, columns] += 1e5
    found = learned(table, first(SHAPE), SHAPE, 1e9)
    assert found.variance[1, 2] == pytest.approx(0.25, rel=0.3)
    others = np.ones_like(found.variance, np.bool_)
    others[1, 2] = False
    np.testing.assert_allclose(found.variance[others], first(SHAPE).variance[others])


def test_what_the_data_said_stays_as_it_was() -> None:
    """A new variance moves an entry by what the prior changes, keeping π·v and the evidence."""
    table, columns = ad_table(40), groups(SHAPE)[1]
    table.latent[:, columns] = np.random.default_rng(2).normal(0, 0.4, (40, 4))
    table.latent_evidence[:, columns] += 300
    before = table.copy()
    found = learned(table, first(SHAPE), SHAPE, 1e9)
    told = [
        each.latent * (each.latent_evidence + by_entry(1 / of.variance, SHAPE)[each.feature])
        for each, of in ((before, first(SHAPE)), (table, found))
    ]
    np.testing.assert_allclose(told[1], told[0], rtol=1e-4)
    np.testing.assert_array_equal(table.latent_evidence, before.latent_evidence)


def test_values_without_evidence_say_nothing_however_many() -> None:
    """Rounding does not add up to evidence over many rows."""
    table = ad_table(60_000)
    found = learned(table, first(SHAPE), SHAPE, 1e9)
    np.testing.assert_allclose(found.variance, first(SHAPE).variance)


def test_no_vector_leaves_its_radius_by_a_new_variance() -> None:
    """A wider prior lets vectors grow up to the radius; one that was outside stays where it was."""
    table, columns = ad_table(40), groups(SHAPE)[2]
    table.latent[:, columns] = np.random.default_rng(4).normal(0, 0.5, (40, 4))
    table.latent_evidence[:, columns] += 200
    before = table.norms()
    found = learned(table, first(SHAPE), SHAPE, 1.0)
    assert found.variance[0, 2] > first(SHAPE).variance[0, 2]
    inside = before < 0.9
    assert (table.norms()[inside] > before[inside]).all()
    assert (table.norms() <= np.maximum(before, 1.0) * (1 + 1e-5)).all()
    assert (before > 1).any()


def test_a_broken_table_leaves_the_variances() -> None:
    """A NaN says nothing of the variances: the gate refuses the state, a retry needs them."""
    table = ad_table(4)
    table.latent[0] = np.nan
    found = learned(table, first(SHAPE), SHAPE, 1e9)
    np.testing.assert_array_equal(found.variance[0], first(SHAPE).variance[0])
    assert np.isfinite(found.variance).all()


def drawn(weight: float, events: int, seed: int) -> tuple[Float32s, Float32s]:
    """Scores and clicks of a world in which interactions count `weight` times."""
    random = np.random.default_rng(seed)
    scores = random.normal((-1.0, 0.0), (1.0, 0.5), (events, 2)).astype(np.float32)
    chance = 1 / (1 + np.exp(-(scores @ (1.0, weight))))
    return scores, (random.random(events) < chance).astype(np.float32)


@pytest.mark.parametrize("weight", [-0.5, 0.0, 0.6, 1.0])
def test_the_weight_is_what_predicts_best(weight: float) -> None:
    """κ finds the world's own weight; what serves is kept between nothing and everything."""
    found = weighed(first(SHAPE), *drawn(weight, 40_000, 1))
    assert found.weight == pytest.approx(weight, abs=4 / found.precision**0.5)
    assert found.served == min(max(found.weight, 0.0), 1.0)


@settings(deadline=None)
@given(cut=st.integers(0, 3000))
def test_the_weight_does_not_depend_on_chunks(cut: int) -> None:
    """Events in two chunks give nearly the κ of one: its posterior is carried on."""
    scores, label = drawn(0.7, 3000, 2)
    whole = weighed(first(SHAPE), scores, label)
    half = weighed(first(SHAPE), scores[:cut], label[:cut])
    both = weighed(half, scores[cut:], label[cut:])
    assert both.weight == pytest.approx(whole.weight, abs=0.03)


def test_without_evidence_interactions_do_not_serve() -> None:
    """Before the first event κ is 0; scores that are not finite leave it as it was."""
    start = first(SHAPE)
    assert start.served == 0.0
    broken = np.array([[0.0, np.nan]], np.float32)
    assert weighed(start, broken, np.ones(1, np.float32)) is start
    assert weighed(start, np.zeros((0, 2), np.float32), np.zeros(0, np.float32)).weight == 0.0


def test_old_evidence_of_the_weight_is_forgotten() -> None:
    """A market whose interactions have come to nothing is heard, however long they were right."""
    found = first(SHAPE)
    for seed in range(20):
        found = weighed(found, *drawn(1.0, 20_000, seed))
    assert found.precision == MOST_CERTAIN
    for seed in range(3):
        found = weighed(found, *drawn(0.0, 20_000, 100 + seed))
    assert found.weight < 0.2


def test_published_ad_vectors_carry_the_weight(schema: Schema, draw: Draw) -> None:
    """The published interactions are κ times the raw ones; main effects are not touched."""
    settings = TrainerSettings.of(schema)
    state = train(genesis(schema, 0.2, 1), draw(200), schema, settings).state
    models = [
        project(
            replace(state, interactions=Interactions(state.interactions.variance, weight)),
            Radii(1e9, 1e9),
            schema,
        )[0]
        for weight in (1.0, 0.25)
    ]
    np.testing.assert_allclose(models[1].ad_latent, 0.25 * models[0].ad_latent, rtol=1e-6)
    np.testing.assert_array_equal(models[1].ad_main, models[0].ad_main)


def test_predictions_carry_the_weight_before_the_chunk(schema: Schema, draw: Draw) -> None:
    """Each event is predicted with the κ that was known when its chunk began."""
    settings = TrainerSettings.of(schema)
    state = train(genesis(schema, 0.2, 1), draw(300), schema, settings).state
    plain, full = (
        replace(state, interactions=replace(state.interactions, weight=weight, precision=1e9))
        for weight in (0.0, 1.0)
    )
    events = draw(100, seed=1)
    weighed_out, served = (train(s, events, schema, settings).predicted for s in (plain, full))
    in_full = replace(settings, weighs_interactions=False)
    np.testing.assert_array_equal(served, train(plain, events, schema, in_full).predicted)
    assert (weighed_out != served).any()


def test_predictions_do_not_carry_what_the_chunk_teaches(schema: Schema, draw: Draw) -> None:
    """Where a chunk moves κ, its own events are still predicted with the κ from before it."""
    settings = TrainerSettings.of(schema)
    state = train(genesis(schema, 0.2, 1), draw(300), schema, settings).state
    state.ad.latent[:] *= np.float32(30.0)  # interactions that say much, and wrongly

    def trained(weight: float) -> Trained:
        weighed_so = replace(state.interactions, weight=weight, precision=1.0)
        start = replace(state, interactions=weighed_so)
        return train(start, draw(100, seed=1), schema, settings)

    none, half, full = (trained(weight) for weight in (0.0, 0.5, 1.0))
    assert abs(half.state.interactions.served - 0.5) > 0.1
    # Scores are linear in κ, and what is learned does not depend on it.
    logits = [np.log(each.predicted / (1.0 - each.predicted)) for each in (none, half, full)]
    assert np.abs(logits[2] - logits[0]).max() > 0.1
    np.testing.assert_allclose(logits[1], (logits[0] + logits[2]) / 2, atol=1e-4)


def test_first_guess_is_an_effect_on_the_score() -> None:
    """Whatever s, o and K, one feature pair's interactions begin with the same variance of s."""
    for shape in (SHAPE, Shape(6, 3, 4, 8)):
        random, tau = np.random.default_rng(3), first(shape).variance[0, 1] ** 0.5
        user = random.normal(0, 0.2, (20_000, shape.alone))
        ad = random.normal(0, tau, (20_000, shape.alone))
        assert (user * ad).sum(axis=1).var() == pytest.approx(FIRST_EFFECT, rel=0.1)
