"""A training cycle publishes what keeps its promises and refuses what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import pytest

from models.constraints import Radii
from models.cycle import Outcome, genesis_snapshot, learn, with_duals
from models.features import parse_schema
from models.index import AdSet
from models.metrics import log_loss
from models.offset import State, Table, sigmoid
from models.publish import promise, publish, raw_model, shrunk
from models.schema import Schema
from models.snapshot import Snapshot
from models.trainer import TrainerSettings, train
from models.types import Batch, empty_batch
from models.vocabulary import Living
from tests.unit.conftest import SCHEMA

Draw = Callable[..., Batch]
IDS = (UUID(int=2), UUID(int=3))


@pytest.fixture
def genesis(schema: Schema, ads: AdSet) -> Snapshot:
    """The snapshot before any event."""
    return genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=0)


def cycle(
    incumbent: Snapshot, chunk: Batch, ads: AdSet, schema: Schema, **changes: object
) -> Outcome:
    """One cycle with the schema's defaults and some settings changed."""
    settings = replace(TrainerSettings.of(schema), **changes)
    return learn(incumbent, chunk, ads, schema, settings, snapshot_ids=IDS, now_ms=1)


def test_genesis_predicts_the_base_rate(genesis: Snapshot, draw: Draw) -> None:
    """Before the first event every ad has the configured click rate, and that is accepted."""
    events = draw(10)
    scores = genesis.model.score(events.user, events.ad)
    np.testing.assert_allclose(sigmoid(scores), 0.2, rtol=1e-6)
    assert genesis.manifest.verdict.result == "accepted"


def test_learning_beats_the_base_rate(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """After some chunks, new events are predicted better than by genesis."""
    snapshot = genesis
    for seed in range(4):
        snapshot = cycle(snapshot, draw(800, seed), ads, schema).candidate
        assert snapshot.manifest.verdict.result == "accepted"
    events = draw(1000, seed=99)
    learned = sigmoid(snapshot.model.score(events.user, events.ad))
    constant = sigmoid(genesis.model.score(events.user, events.ad))
    assert log_loss(learned, events.label) < log_loss(constant, events.label) - 0.02


def test_an_absurd_step_is_refused_twice(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """A step a million times too large is refused, its retry by projection too, with reasons."""
    outcome = cycle(genesis, draw(500), ads, schema, step_size=1e6)
    assert [attempt.verdict.result for attempt in outcome.attempts] == ["refused", "refused"]
    assert all(attempt.verdict.reasons for attempt in outcome.attempts)
    assert outcome.candidate.manifest.id == IDS[1]


def test_a_cycle_changes_nothing_it_was_given(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """Two cycles from one incumbent are equal: the first left no trace."""
    chunk = draw(300)
    first = cycle(genesis, chunk, ads, schema).candidate
    second = cycle(genesis, chunk, ads, schema).candidate
    np.testing.assert_array_equal(first.state.user.latent, second.state.user.latent)
    np.testing.assert_array_equal(first.model.ad_latent, second.model.ad_latent)
    assert len(genesis.state.user) == 0


def test_an_empty_chunk_changes_no_prediction(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """A cycle over no events keeps every parameter and is accepted."""
    learned = cycle(genesis, draw(300), ads, schema).candidate
    again = cycle(learned, empty_batch(3, 2), ads, schema).candidate
    events = draw(50, seed=5)
    np.testing.assert_array_equal(
        learned.model.score(events.user, events.ad), again.model.score(events.user, events.ad)
    )
    assert again.manifest.verdict.result == "accepted"


def test_a_broken_promise_is_repaired(draw: Draw, ads: AdSet) -> None:
    """Under a narrow promise the scores are shrunk until the certified range fits it."""
    narrow = parse_schema(SCHEMA.replace("base_rate", "p_min = 0.1\np_max = 0.4\nbase_rate"))
    genesis = genesis_snapshot(narrow, ads, snapshot_id=UUID(int=1), now_ms=0)
    candidate = cycle(genesis, draw(2000), ads, narrow).candidate
    assert candidate.manifest.verdict.result == "repaired"
    events = draw(500, seed=3)
    probabilities = sigmoid(candidate.model.score(events.user, events.ad))
    assert probabilities.min() >= 0.1
    assert probabilities.max() <= 0.4


def test_shrinking_keeps_the_ranking(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """b + f·(s − b) is what a shrunk model scores."""
    model = cycle(genesis, draw(800), ads, schema).candidate.model
    events = draw(100, seed=4)
    scores = model.score(events.user, events.ad)
    expected = model.bias + 0.5 * (scores - model.bias)
    np.testing.assert_allclose(
        shrunk(model, 0.5).score(events.user, events.ad), expected, atol=1e-5
    )


def test_published_vectors_keep_tight_radii(
    genesis: Snapshot, draw: Draw, schema: Schema, ads: AdSet
) -> None:
    """However small the radii, no published vector is longer, and the promise is certified."""
    settings = replace(TrainerSettings.of(schema), user_radius=0.2, ad_radius=0.05)
    state = train(genesis.state, draw(1500), schema, settings).state
    published = publish(state, ads, schema, settings.radii)
    assert published.projection.count > 0
    assert published.largest_ratio <= 1 + 1e-6
    low, high = promise(schema)
    assert low <= published.reach.low
    assert published.reach.high <= high


def test_the_retry_keeps_the_duals_of_the_refused_candidate(
    genesis: Snapshot, draw: Draw, schema: Schema
) -> None:
    """Duals move over to the same rows; values born in the refused run are left out."""
    tight = replace(TrainerSettings.of(schema), user_radius=0.05, ad_radius=0.01, constraint="dual")
    first = train(genesis.state, draw(300, seed=1), schema, tight).state
    second = train(first, draw(300, seed=2, ads=60), schema, tight).state
    merged = with_duals(first, second)
    assert len(merged.user) == len(first.user)
    assert len(merged.ad) == len(first.ad) < len(second.ad)
    np.testing.assert_array_equal(merged.user.dual, second.user.dual[: len(first.user)])
    assert (merged.user.dual != first.user.dual).any()


def test_duals_move_over_by_value_where_rows_were_collected(
    genesis: Snapshot, draw: Draw, schema: Schema
) -> None:
    """What stayed has the dual of its own value in the other state, what was collected its own."""
    rule = TrainerSettings.of(schema)
    first = train(genesis.state, draw(300, seed=1), schema, rule).state
    users, shown = (np.arange(len(each)) for each in (first.user, first.ad))
    rows = Living(users[users % 3 > 0], shown[shown % 4 < 3])
    second = train(first, draw(300, seed=2, ads=60), schema, rule, living=rows).state
    for before, after in ((first.user, second.user), (first.ad, second.ad)):
        before.dual[:] = -1 - np.arange(len(before))
        after.dual[:] = 1 + np.arange(len(after))
    merged = with_duals(first, second, rows)
    for side, kept in (("user", rows.user), ("ad", rows.ad)):
        before, after, found = (getattr(each, side) for each in (first, second, merged))
        expected = before.dual.copy()
        expected[kept] = [dual_of(after, key) for key in before.keys[kept]]
        np.testing.assert_array_equal(found.dual, expected)
        np.testing.assert_array_equal(found.latent, before.latent)
        assert (before.dual < 0).all()


def dual_of(table: Table, key: int) -> float:
    """The dual of one value."""
    (row,) = np.flatnonzero(table.keys == key)
    return float(table.dual[row])


@dataclass(frozen=True)
class Retried:
    """A chunk whose first candidate breaks out of tight radii, and what was made of it.

    `refused`: the state of the refused candidate, trained apart from the cycle.
    """

    incumbent: Snapshot
    chunk: Batch
    rule: TrainerSettings
    rows: Living
    refused: State
    outcome: Outcome


@pytest.fixture
def retried(genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema) -> Retried:
    """One user value and one ad value, of a retired ad, are too old and are collected."""
    incumbent = cycle(genesis, draw(300, seed=1), ads, schema).candidate
    state, left = incumbent.state, np.arange(19)
    retired = np.setdiff1d(ads.features.ids, ads.features.take(left).ids)
    rows = Living(
        np.delete(np.arange(len(state.user)), 2),
        np.flatnonzero(~np.isin(state.ad.keys, retired)),
    )
    state.user.touched_ms[2] = state.ad.touched_ms[state.ad.keys == retired] = -(10**12)
    for table in (state.user, state.ad):
        table.dual[:] = np.linspace(0.1, 0.2, len(table))
    tight = {"user_radius": 0.25, "ad_radius": 0.05, "constraint": "dual"}
    chunk, rule = draw(200, seed=2, ads=60), replace(TrainerSettings.of(schema), **tight)
    refused = train(state, chunk, schema, rule, living=rows).state
    kept = AdSet(left + 1, ads.features_version[left], ads.log_bid[left], ads.features.take(left))
    outcome = cycle(incumbent, chunk, kept, schema, **tight)
    return Retried(incumbent, chunk, rule, rows, refused, outcome)


def test_a_retry_by_projection_is_accepted(retried: Retried) -> None:
    """Vectors that broke out of their radii refuse the first candidate; the second has none."""
    first, second = retried.outcome.attempts
    failed = [check.name for check in first.verdict.checks if not check.passed]
    assert (first.verdict.result, failed) == ("refused", ["raw_norms"])
    assert second.verdict.result == "accepted"
    assert retried.outcome.candidate.manifest == second
    assert (first.id, second.id) == IDS
    assert [each.metrics["collected_user_values"] for each in (first, second)] == [1, 1]
    assert [each.metrics["collected_ad_values"] for each in (first, second)] == [1, 1]
    shown = np.isin(retried.outcome.candidate.state.user.keys, retried.chunk.user.ids)
    norms = retried.outcome.candidate.state.user.norms()[shown]
    assert (norms <= retried.rule.user_radius * (1 + 1e-5)).all()


def test_a_retry_trains_the_incumbent_with_the_duals_of_the_refused(
    retried: Retried, schema: Schema
) -> None:
    """Its state is what projection makes of the incumbent's, but for the duals: value by value."""
    state, start = retried.outcome.candidate.state, retried.incumbent.state
    projecting = replace(retried.rule, constraint="projection")
    alone = train(start, retried.chunk, schema, projecting, living=retried.rows).state
    for side in ("user", "ad"):
        found, expected = getattr(state, side), getattr(alone, side)
        np.testing.assert_array_equal(found.keys, expected.keys)
        np.testing.assert_array_equal(found.latent, expected.latent)
        np.testing.assert_array_equal(found.main_evidence, expected.main_evidence)
        kept = getattr(retried.rows, side)
        held = getattr(start, side).keys[kept]
        of_refused = [dual_of(getattr(retried.refused, side), key) for key in held]
        assert [dual_of(found, key) for key in held] == of_refused
        assert len(set(of_refused)) > len(held) / 2
        assert (of_refused != getattr(start, side).dual[kept]).any()
        assert (found.dual[len(held) :] == 0).all()


@pytest.mark.parametrize("tight", [{}, {"user_radius": 0.25, "constraint": "dual"}])
def test_an_outcome_tells_what_the_incumbent_predicted(
    tight: dict[str, object], genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """Of each event, as served before the chunk, whether one candidate was tried or two."""
    incumbent, chunk = cycle(genesis, draw(800), ads, schema).candidate, draw(200, seed=1)
    outcome = cycle(incumbent, chunk, ads, schema, **tight)
    assert len(outcome.attempts) == (2 if tight else 1)
    before, after = (
        sigmoid(each.model.score(chunk.user, chunk.ad)) for each in (incumbent, outcome.candidate)
    )
    np.testing.assert_allclose(outcome.predicted, before, rtol=1e-5)
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("side", ["user", "ad"])
def test_the_gate_measures_the_published_vectors_of_both_sides(
    side: str, genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """Where one side fills its radius and the other hardly, the ratio that is judged is 1."""
    state = cycle(genesis, draw(800), ads, schema).candidate.state
    in_full = replace(state, interactions=replace(state.interactions, weight=1.0))
    model = raw_model(in_full, schema, since_ms=0)
    largest = {
        each: float(np.linalg.norm(getattr(model, f"{each}_latent"), axis=1).max())
        for each in ("user", "ad")
    }
    radii = {each: 10 * norm for each, norm in largest.items()}
    radii[side] = largest[side] / 1.5
    published = publish(in_full, ads, schema, Radii(**radii))
    assert published.largest_ratio == pytest.approx(1.0, abs=1e-5)
    assert published.projection.largest_ratio == pytest.approx(1.5, rel=1e-5)
    start = replace(genesis, state=in_full)
    changes = {f"{each}_radius": radius for each, radius in radii.items()}
    manifest = cycle(start, empty_batch(3, 2), ads, schema, **changes).attempts[0]
    judged = {check.name: check for check in manifest.verdict.checks}["published_norms"]
    assert (judged.passed, judged.value) == (True, published.largest_ratio)


def test_a_late_click_is_learned_as_a_click(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """What is predicted where a click was learned as none goes up once it has come, not before."""
    chunk, later = draw(200, 1), draw(50, 2)
    first = cycle(genesis, replace(chunk, label=np.zeros(200, np.float32)), ads, schema).candidate
    settings = TrainerSettings.of(schema)
    clicked = replace(chunk.rows(0, 40), label=np.ones(40, np.float32))
    without, corrected = (
        learn(first, later, ads, schema, settings, snapshot_ids=IDS, now_ms=1, late=late)
        for late in (None, clicked)
    )
    scores = [each.candidate.model.score(clicked.user, clicked.ad) for each in (without, corrected)]
    assert scores[1].mean() > scores[0].mean() + 0.05


def test_the_gate_counts_a_late_click_and_not_its_impression_again(
    genesis: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """The window has the chunk's impressions and losses, and the clicks of both."""
    chunk = draw(200, 1)
    late = replace(draw(30, 2), label=np.ones(30, np.float32))
    settings = TrainerSettings.of(schema)
    outcome = learn(genesis, chunk, ads, schema, settings, snapshot_ids=IDS, now_ms=1, late=late)
    (counted,) = outcome.candidate.manifest.window
    assert (counted.events, counted.clicks) == (200, chunk.label.sum() + 30)
    assert len(outcome.predicted) == 200
