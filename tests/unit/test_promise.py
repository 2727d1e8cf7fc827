"""The promise on pCTR: nothing that may serve leaves it, and what would is repaired or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from models.certificate import score_range
from models.constraints import Radii, project
from models.cycle import Outcome, genesis_snapshot, learn
from models.features import Encoder, stack
from models.index import AdSet
from models.kernels import compiled
from models.offset import Model, State, Table, empty_table, genesis, sigmoid
from models.publish import promise, publish
from models.schema import Schema
from models.snapshot import Snapshot
from models.trainer import TrainerSettings
from models.types import Batch, FeatureValue, Float64s, Ragged, empty_batch
from tests.unit.conftest import CATEGORIES
from tests.unit.extremes import (
    ascended,
    every_user,
    extremes,
    served,
    users_of,
    users_of_several,
)
from tests.unit.learners import PARSED, copied, events, run, shaped

Violation = Callable[[State], State]
SHAPES = [(1, 0, 2), (1, 3, 3), (2, 2, 0), (3, 0, 2), (3, 1, 2), (5, 2, 1), (20, 1, 1)]
AD_VALUES = 12
SEEK = (Phase.explicit, Phase.generate)
"""Without shrinking what fails: a cycle takes too long for that."""


def table(keys: np.ndarray, feature: np.ndarray, width: int, size: float, seed: int) -> Table:
    """Values with parameters of a heavy-tailed distribution."""
    rng, one = np.random.default_rng(seed), np.ones(len(keys), np.float32)
    return replace(
        empty_table(width),
        keys=keys.astype(np.int64),
        latent=(size * rng.standard_t(2, (len(keys), width))).astype(np.float32),
        main=(size * rng.standard_t(2, len(keys))).astype(np.float32),
        latent_evidence=np.ones((len(keys), width), np.float32),
        main_evidence=one,
        dual=0 * one,
        touched_ms=np.zeros(len(keys), np.int64),
        feature=feature.astype(np.uint8),
    )


def random_state(schema: Schema, values: int, size: float, seed: int) -> State:
    """A state with so many values a user feature, none of whose parameters were learned.

    Interactions serve in full: at the first weight, 0, every published ad vector would be zero.
    """
    keys = np.random.default_rng(seed).permutation(values * len(schema.user))
    user = table(keys, keys % len(schema.user), schema.user_width, size, seed)
    ads = np.arange(AD_VALUES)
    ad = table(ads, 0 * ads, schema.dimensions, size, seed + 1)
    bias = float(np.random.default_rng(seed).normal(-1, 1))
    begun = genesis(schema, 0.2, 1)
    in_full = replace(begun.interactions, weight=1.0)
    return replace(begun, user=user, ad=ad, bias=bias, interactions=in_full)


def random_ads(n: int, features: int, seed: int) -> AdSet:
    """Ads with one to three values a feature out of those of `random_state` and some others."""
    rng = np.random.default_rng(seed)
    cells = [rng.permutation(AD_VALUES + 2)[: rng.integers(1, 4)] for _ in range(n * features)]
    rows = Ragged(np.concatenate(cells), np.cumsum([0, *map(len, cells)]), features)
    ids = np.arange(1, n + 1, dtype=np.int64)
    return AdSet(ids, np.ones(n, np.int64), np.zeros(n, np.float32), rows)


def courted(model: Model, seed: int) -> tuple[Model, Ragged]:
    """The model with ads made for some of its users, as long as they were: no score is higher."""
    users = users_of_several(model, len(model.ad_keys), seed)
    towards = model.user_vectors(users)[0].astype(np.float64)
    lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (towards, model.ad_latent)]
    scaled = towards * (lengths[1] / np.maximum(lengths[0], 1e-300))
    ids = np.stack((model.ad_keys, np.full(len(model.ad_keys), -1)), axis=1)
    return replace(model, ad_latent=scaled.astype(np.float32)), users_of(ids)


def promising(schema: Schema, p_min: float, p_max: float) -> Schema:
    """The schema under another promise."""
    return replace(schema, model=replace(schema.model, p_min=p_min, p_max=p_max))


random_models = given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from(SHAPES),
    values=st.integers(1, 5),
    size=st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 3.0, 1e3]),
    radius=st.sampled_from([1e-3, 0.5, 2.0, 1e3]),
)


@settings(max_examples=80, deadline=None)
@random_models
def test_no_score_leaves_the_certified_range(
    seed: int, shape: tuple[int, int, int], values: int, size: float, radius: float
) -> None:
    """The extremes over users and ads, and users of several values, are inside, to the last bit."""
    schema = shaped(*shape)
    model, _ = project(random_state(schema, values, size, seed), Radii(radius, radius), schema)
    assert model.ad_latent.any() == (size > 0)
    for held, ads in ((model, random_ads(8, 2, seed).features), courted(model, seed)):
        assert held.ad_latent.any() or size < 1e-3
        reach = score_range(held, *held.ad_vectors(ads))
        found = extremes(held, ads, seed)
        others = served(held, users_of_several(held, 40, seed), ads)
        assert reach.low <= min(found.low, others.min())
        assert max(found.high, others.max()) <= reach.high


@settings(max_examples=40, deadline=None)
@random_models
def test_published_scores_keep_the_promise(
    seed: int, shape: tuple[int, int, int], values: int, size: float, radius: float
) -> None:
    """Whatever the state, published scores stay in a narrow promise, vectors in their radii."""
    schema = promising(shaped(*shape), 0.005, 0.9)
    state = random_state(schema, values, size, seed)
    low, high = promise(schema)
    state = replace(state, bias=float(np.clip(state.bias, low + 0.1, high - 0.1)))
    ads, radii = random_ads(8, 2, seed), Radii(radius, radius / 2)
    published = publish(state, ads, schema, radii)
    assert published.model.ad_latent.any() == (size > 0)
    found = extremes(published.model, ads.features, seed)
    assert low <= published.reach.low <= found.low
    assert found.high <= published.reach.high <= high
    assert_inside(published.model, radii)


def assert_inside(model: Model, radii: Radii) -> None:
    """No vector is longer than its radius, nor in float32 arithmetic by more than its rounding."""
    for latent, radius in ((model.user_latent, radii.user), (model.ad_latent, radii.ad)):
        squares = np.einsum("ij,ij->i", latent, latent, dtype=np.float64)
        assert np.sqrt(squares).max(initial=0.0) <= radius
        assert np.linalg.norm(latent, axis=1).max(initial=0.0) <= radius * (1 + 1e-6)


def test_the_search_finds_what_trying_all_finds() -> None:
    """Ascent never leaves the extremes of all users, and nearly always reaches them."""
    reached = []
    for seed in range(40):
        schema = shaped(*SHAPES[seed % 6])
        state = random_state(schema, 1 + seed % 4, 0.7, seed)
        model, _ = project(state, Radii(2.0, 2.0), schema)
        assert model.ad_latent.any()
        ads = random_ads(6, 2, seed).features
        true, found = served(model, every_user(model), ads), ascended(model, ads, seed)
        assert true.min() - 1e-6 <= found.low <= found.high <= true.max() + 1e-6
        reached += [found.low - true.min() < 1e-3, true.max() - found.high < 1e-3]
    assert np.mean(reached) > 0.9


@lru_cache
def catalog() -> AdSet:
    """Twenty ads with two categories each, more than the stream shows."""
    encoder, ids = Encoder(PARSED), np.arange(1, 21, dtype=np.int64)
    values: list[dict[str, FeatureValue]] = [
        {"creative": int(i), "category": [CATEGORIES[i % 4], CATEGORIES[i % 3]]} for i in ids
    ]
    rows = stack([encoder.encode_ad(each) for each in values], 2)
    return AdSet(ids, np.ones(20, np.int64), np.zeros(20, np.float32), rows)


def genesis_of(schema: Schema) -> Snapshot:
    """The snapshot before the first event."""
    return genesis_snapshot(schema, catalog(), snapshot_id=UUID(int=1), now_ms=0)


def cycle(incumbent: Snapshot, chunk: Batch, schema: Schema, **changes: object) -> Outcome:
    """One cycle with the schema's defaults and some settings changed."""
    rule = replace(TrainerSettings.of(schema), **changes)  # type: ignore[arg-type]  # of any type
    ids = UUID(int=2), UUID(int=3)
    return learn(incumbent, chunk, catalog(), schema, rule, snapshot_ids=ids, now_ms=10**6)


def verdict(snapshot: Snapshot) -> str:
    """The gate's answer."""
    return snapshot.manifest.verdict.result


def pctr(snapshot: Snapshot) -> Float64s:
    """What any user, of one value a feature or of several, and any ad of the catalog are served."""
    model, ads = snapshot.model, catalog().features
    each = [every_user(model), users_of_several(model, 50, seed=1)]
    return sigmoid(np.concatenate([served(model, users, ads) for users in each]))


def assert_kept(snapshot: Snapshot, schema: Schema) -> None:
    """Every pCTR that the snapshot can serve is inside the promise, every norm in its radius."""
    found = pctr(snapshot)
    assert schema.model.p_min <= found.min()
    assert found.max() <= schema.model.p_max
    assert_inside(snapshot.model, TrainerSettings.of(schema).radii)


NARROW = promising(PARSED, 0.01, 0.9)
PROMISES = [(1e-7, 1 - 1e-6), (0.02, 0.9), (0.1, 0.4)]


@pytest.mark.parametrize(("p_min", "p_max"), PROMISES)
@settings(max_examples=6, deadline=None, phases=SEEK)
@given(seed=st.integers(0, 10**6), size=st.integers(50, 300), step_size=st.sampled_from([1.0, 4.0]))
def test_no_snapshot_that_may_serve_leaves_the_promise(
    p_min: float, p_max: float, seed: int, size: int, step_size: float
) -> None:
    """Cycle after cycle, under wide and narrow promises, every user and ad is served inside.

    Some cycle does serve, unless the click rate itself, and so each bias, is outside the promise.
    """
    schema = promising(PARSED, p_min, p_max)
    incumbent, served_any, biases = genesis_of(schema), False, []
    for number in range(3):
        chunk = events(300, seed + number).rows(0, size)
        candidate = cycle(incumbent, chunk, schema, step_size=step_size).candidate
        if verdict(candidate) != "refused":
            assert_kept(candidate, schema)
            incumbent, served_any = candidate, True
        biases.append(candidate.state.bias)
    low, high = promise(schema)
    assert served_any or not any(low < bias < high for bias in biases)


@lru_cache
def learned() -> Snapshot:
    """A snapshot under the narrow promise that has learned two chunks and serves."""
    first = cycle(genesis_of(NARROW), events(400, 1), NARROW).candidate
    second = cycle(first, events(400, 2), NARROW).candidate
    assert verdict(second) != "refused"
    return second


def forced(side: str, name: str, at: Any = slice(None), **change: float) -> Violation:
    """Sets some entries of one array of a state to a `value`, or multiplies them by `times`."""

    def violate(state: State) -> State:
        table = getattr(state, side)
        array = np.array(getattr(table, name))
        array[at] = change.get("value", array[at] * np.float32(change.get("times", 1)))
        changed: Any = {side: replace(table, **{name: array})}
        return replace(state, **changed)

    return violate


CREATIVE = 0
"""A row of the ads' table: the first event's creative, which is in the catalog."""
VIOLATIONS: dict[str, Violation] = {
    "user latents a thousand times": forced("user", "latent", times=1e3),
    "ad latents a million times": forced("ad", "latent", times=1e6),
    "a user latent near the largest float": forced("user", "latent", 0, value=1e38),
    "one creative's latent": forced("ad", "latent", CREATIVE, value=1e3),
    "one creative's main effect": forced("ad", "main", CREATIVE, value=40.0),
    "every user main effect": forced("user", "main", value=1e3),
    "one user main effect": forced("user", "main", 3, value=-1e30),
    "main effects that overflow": forced("ad", "main", value=3e38),
    "bias far above": lambda state: replace(state, bias=1e3),
    "bias just above": lambda state: replace(state, bias=promise(NARROW)[1] + 1e-7),
    "bias just below": lambda state: replace(state, bias=promise(NARROW)[0] - 1e-7),
    "bias that is not a number": lambda state: replace(state, bias=np.nan),
    "infinite bias": lambda state: replace(state, bias=-np.inf),
    "a user latent that is not a number": forced("user", "latent", (1, 2), value=np.nan),
    "an infinite ad latent": forced("ad", "latent", (1, 2), value=np.inf),
    "an ad main effect that is not a number": forced("ad", "main", 1, value=np.nan),
}
CORRUPTIONS = VIOLATIONS | {
    "evidence that is not a number": forced("ad", "latent_evidence", 1, value=np.nan),
    "negative evidence": forced("user", "main_evidence", value=-1e3),
    "evidence that takes all of the prior's": forced("user", "main_evidence", value=-10.0),
    "bias precision of zero": lambda state: replace(state, bias_precision=0.0),
    "duals that are not numbers": forced("user", "dual", value=np.nan),
    "infinite duals": forced("ad", "dual", value=np.inf),
}


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_violation_is_repaired_or_refused(kind: str) -> None:
    """What is forced into the trainer's state and stays there never serves as it is."""
    broken = replace(learned(), state=VIOLATIONS[kind](learned().state))
    outcome = cycle(broken, empty_batch(3, 2), NARROW)
    assert "accepted" not in [each.verdict.result for each in outcome.attempts]
    assert all(each.verdict.reasons for each in outcome.attempts[:-1])
    if verdict(outcome.candidate) == "repaired":
        assert_kept(outcome.candidate, NARROW)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_training_on_from_a_broken_state_keeps_the_promise(kind: str) -> None:
    """Whatever learning makes of it, what may serve is inside; what is refused has reasons."""
    broken = replace(learned(), state=CORRUPTIONS[kind](learned().state))
    candidate = cycle(broken, events(300, 3), NARROW).candidate
    if verdict(candidate) == "refused":
        assert candidate.manifest.verdict.reasons
    else:
        assert_kept(candidate, NARROW)
        assert np.isfinite(pctr(candidate)).all()


@pytest.mark.parametrize("step_size", [30.0, 1e3, 1e6, 1e30])
def test_an_absurd_step_never_serves_outside(step_size: float) -> None:
    """However large the step, what may serve keeps the promise; a thousandfold one may not."""
    candidate = cycle(learned(), events(300, 3), NARROW, step_size=step_size).candidate
    if verdict(candidate) != "refused":
        assert_kept(candidate, NARROW)
    assert step_size < 1e3 or verdict(candidate) == "refused"


@pytest.mark.parametrize("off", [1e-9, 1e-5, 1e-3])
def test_a_first_guess_outside_the_promise_is_refused(off: float) -> None:
    """However little the base rate is above the promise, its snapshot must not serve."""
    schema = promising(PARSED, 0.01, PARSED.model.base_rate * (1 - off))
    assert verdict(genesis_of(schema)) == "refused"


def test_the_certified_range_is_not_much_wider_than_what_occurs() -> None:
    """On a trained model the bound is at most twice as far from the bias as a score gets."""
    rule, chunks = TrainerSettings.of(PARSED), [events(1500, seed) for seed in range(3)]
    state = run(genesis(PARSED, 0.2, 1), chunks, rule, compiled).state
    published = publish(state, catalog(), PARSED, rule.radii)
    found, reach = extremes(published.model, catalog().features), published.reach
    assert reach.high - reach.bias < 2 * (found.high - reach.bias)
    assert reach.bias - reach.low < 2 * (reach.bias - found.low)


def test_a_repair_that_costs_much_is_refused() -> None:
    """One absurd creative must not silence all others: the incumbent rather serves on."""
    last = Encoder(PARSED).encode_ad({"creative": 8}).ids[0]
    state = copied(learned().state)
    state.ad.main[state.ad.keys == last] = 40.0
    candidate = cycle(replace(learned(), state=state), events(300, 3, ads=7), NARROW).candidate
    failed = [check.name for check in candidate.manifest.verdict.checks if not check.passed]
    assert "projection_loss" in failed
