"""A training cycle publishes what keeps its promises and refuses what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from models.cycle import Outcome, genesis_snapshot, learn, with_duals
from models.features import parse_schema
from models.index import AdSet
from models.metrics import log_loss
from models.offset import sigmoid
from models.publish import promise, publish, shrunk
from models.schema import Schema
from models.snapshot import Snapshot
from models.trainer import TrainerSettings, train
from models.types import Batch, empty_batch
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
