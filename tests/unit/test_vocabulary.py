"""Values unseen for too long are collected, those that an ad still carries are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.constraints import project
from models.cycle import Outcome, genesis_snapshot, learn
from models.errors import SchemaInvalid
from models.features import Encoder, parse_schema, stack
from models.index import AdSet
from models.offset import State, Table, empty_table, genesis
from models.priors import first_rows
from models.schema import Schema
from models.snapshot import Snapshot
from models.trainer import TrainerSettings, train
from models.types import Batch, Float32s, Int64s, Ragged
from models.vocabulary import (
    EVERYTHING,
    Living,
    collected,
    count_collected,
    living,
    published_bytes,
    row_bytes,
)
from tests.unit.conftest import CATEGORIES, SCHEMA

Draw = Callable[..., Batch]
DAY_MS = 86_400_000
NOW_MS = 1_790_000_000_000
PARSED = parse_schema(SCHEMA)


def table(touched_ms: Int64s, width: int, seed: int) -> Table:
    """Rows of random parameters, last touched at the given times."""
    rng, n = np.random.default_rng(seed), len(touched_ms)
    rows = first_rows(
        rng.permutation(10 * n)[:n].astype(np.int64),
        rng.integers(0, 2, n),
        rng.normal(0, 0.3, (n, width)),
    )
    drawn = {name: rng.random(n).astype(np.float32) for name in ("main", "dual")}
    return replace(rows, touched_ms=touched_ms, **drawn)


def state(user_ages: list[float], ad_ages: list[float], seed: int = 0) -> State:
    """A state whose values were last seen so many days before `NOW_MS`; interactions serve."""
    user, ad = (
        (NOW_MS - np.array(ages, np.float64) * DAY_MS).astype(np.int64)
        for ages in (user_ages, ad_ages)
    )
    begun = genesis(PARSED, 0.1, 1)
    return replace(
        begun,
        user=table(user, PARSED.user_width, seed),
        ad=table(ad, PARSED.dimensions, seed + 1),
        interactions=replace(begun.interactions, weight=1.0),
    )


def carrying(keys: Int64s) -> Ragged:
    """Ads of two features whose values these are; the last one carries its first value twice."""
    ids = np.concatenate((keys, keys[:1])) if len(keys) % 2 else keys
    return Ragged(ids, np.arange(len(ids) + 1), 2)


ages = st.lists(st.floats(0, 60), max_size=30)


@given(user=ages, ad=ages, ttl=st.floats(0.01, 50), seed=st.integers(0, 99), data=st.data())
def test_exactly_the_unseen_and_uncarried_go(
    user: list[float], ad: list[float], ttl: float, seed: int, data: st.DataObject
) -> None:
    """User rows stay while seen within the TTL; ad rows also while an ad carries their value."""
    before = state(user, ad, seed)
    carried = before.ad.keys[data.draw(st.lists(st.booleans(), min_size=len(ad), max_size=len(ad)))]
    rows = living(before, carrying(carried), now_ms=NOW_MS, ttl_days=ttl)
    after = collected(before, rows)
    stays = before.user.touched_ms >= NOW_MS - ttl * DAY_MS
    np.testing.assert_array_equal(after.user.keys, before.user.keys[stays])
    held = (before.ad.touched_ms >= NOW_MS - ttl * DAY_MS) | np.isin(before.ad.keys, carried)
    np.testing.assert_array_equal(after.ad.keys, before.ad.keys[held])
    assert count_collected(before, rows) == ((~stays).sum(), (~held).sum())


@given(user=ages, ad=ages, seed=st.integers(0, 99))
def test_what_is_left_keeps_every_parameter(user: list[float], ad: list[float], seed: int) -> None:
    """Every array of a row that stays is as it was, in the order that it was in."""
    before = state(user, ad, seed)
    rows = living(before, carrying(before.ad.keys[:0]), now_ms=NOW_MS, ttl_days=20.0)
    after = collected(before, rows)
    for side in ("user", "ad"):
        old, new = getattr(before, side), getattr(after, side)
        kept = np.isin(old.keys, new.keys)
        for item in fields(Table):
            np.testing.assert_array_equal(getattr(new, item.name), getattr(old, item.name)[kept])


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), events=st.integers(1, 20))
def test_events_of_kept_values_score_the_same(seed: int, events: int) -> None:
    """The published model of the rest gives an event that only carries kept values its score."""
    rng = np.random.default_rng(seed)
    before = state(list(rng.uniform(0, 60, 40)), list(rng.uniform(0, 60, 20)), seed)
    before.user.touched_ms[:1], before.ad.touched_ms[:1] = NOW_MS, NOW_MS
    rows = living(before, carrying(before.ad.keys[:0]), now_ms=NOW_MS, ttl_days=30.0)
    after = collected(before, rows)
    users = Ragged(rng.choice(after.user.keys, 3 * events), np.arange(3 * events + 1), 3)
    shown = Ragged(rng.choice(after.ad.keys, 2 * events), np.arange(2 * events + 1), 2)
    np.testing.assert_array_equal(scores(before, users, shown), scores(after, users, shown))


def scores(raw: State, users: Ragged, ads: Ragged) -> Float32s:
    """s of each event under the published model."""
    model, _ = project(raw, TrainerSettings.of(PARSED).radii, PARSED)
    assert model.ad_latent.any(axis=1).all()
    return model.score(users, ads)


def test_a_ttl_of_zero_keeps_everything() -> None:
    """Nothing is collected, however old."""
    old = state([1e4], [1e4])
    assert living(old, carrying(old.ad.keys[:0]), now_ms=NOW_MS, ttl_days=0.0) == EVERYTHING


def test_training_on_the_living_is_training_on_the_collected_state(
    schema: Schema, draw: Draw
) -> None:
    """Leaving rows behind while growing equals collecting first, bit for bit."""
    options = TrainerSettings.of(schema)
    start = train(genesis(schema, 0.2, 1), draw(300), schema, options).state
    rows = Living(np.flatnonzero(np.arange(len(start.user)) % 3), np.arange(4, len(start.ad)))
    chunk = draw(200, seed=1)
    direct = train(start, chunk, schema, options, living=rows)
    twice = train(collected(start, rows), chunk, schema, options)
    np.testing.assert_array_equal(direct.predicted, twice.predicted)
    for side in ("user", "ad"):
        for item in fields(Table):
            first, second = (getattr(getattr(t.state, side), item.name) for t in (direct, twice))
            np.testing.assert_array_equal(first, second)


@pytest.fixture
def genesis_line(schema: Schema, ads: AdSet) -> Snapshot:
    """The snapshot before any event."""
    return genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=0)


def at(chunk: Batch, day: float) -> Batch:
    """The chunk moved to that day."""
    return replace(chunk, time_ms=chunk.time_ms + int(day * DAY_MS))


def cycle(
    incumbent: Snapshot, chunk: Batch, ads: AdSet, schema: Schema, **changes: object
) -> Outcome:
    """One cycle at the end of its chunk."""
    options = replace(TrainerSettings.of(schema), **changes)
    now_ms = int(chunk.time_ms.max()) + 1
    ids = UUID(int=2), UUID(int=3)
    return learn(incumbent, chunk, ads, schema, options, snapshot_ids=ids, now_ms=now_ms)


def without(ads: AdSet, count: int) -> AdSet:
    """The catalog after the ads of the last `count` rows were retired."""
    left = np.arange(len(ads) - count)
    arrays = (ads.ad_ids[left], ads.features_version[left], ads.log_bid[left])
    return AdSet(*arrays, ads.features.take(left))


def test_a_retired_ad_loses_its_parameters_after_the_ttl(
    genesis_line: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """Within the TTL they stay; then they go, are counted, and the incumbent is as it was."""
    first = cycle(genesis_line, draw(400), ads, schema).candidate
    rest = without(ads, 5)
    within = cycle(first, at(draw(200, ads=5), 29), rest, schema).candidate
    assert len(within.state.ad) == len(first.state.ad)
    rows, model = len(within.state.ad), within.model.ad_keys.copy()
    passed = cycle(within, at(draw(200, ads=5), 31), rest, schema).candidate
    assert len(passed.state.ad) == rows
    after = cycle(passed, at(draw(200, ads=5), 31.1), rest, schema).candidate
    assert after.manifest.metrics["collected_ad_values"] == 5
    assert len(after.state.ad) == rows - 5
    assert len(within.state.ad) == rows
    np.testing.assert_array_equal(within.model.ad_keys, model)


def test_an_ad_at_rest_resumes_with_its_own_duals(
    genesis_line: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """An ad of the catalog that was not shown for a year has μ and its vector as it left them."""
    first = cycle(genesis_line, draw(400), ads, schema).candidate
    rested = first.state.ad.keys == key_of(schema, 17)
    first.state.ad.dual[rested] = 0.75
    later = cycle(first, at(draw(200, ads=5), 365), ads, schema).candidate
    still = later.state.ad.keys == key_of(schema, 17)
    assert later.manifest.metrics["collected_ad_values"] == 0
    assert later.state.ad.dual[still] == 0.75
    # Learned prior variances move every value a little, at rest or not.
    latent = first.state.ad.latent[rested]
    np.testing.assert_allclose(later.state.ad.latent[still], latent, rtol=0.1, atol=1e-4)


def key_of(schema: Schema, ad: int) -> int:
    """The value of an ad's creative."""
    return int(Encoder(schema).encode_ad({"creative": ad, "category": ["shoes"]}).ids[0])


def test_a_user_value_that_comes_back_within_the_ttl_is_still_there(
    genesis_line: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """The age of a value is judged when the chunk begins, before its events are learned."""
    first = cycle(genesis_line, draw(200), ads, schema).candidate
    later = cycle(first, at(draw(200), 29.9), ads, schema).candidate
    assert later.manifest.metrics["collected_user_values"] == 0
    assert len(later.state.user) == len(first.state.user)


def test_nothing_ages_while_nothing_is_learned(
    genesis_line: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """After a year without an event the first chunk finds every value where it was."""
    first = cycle(genesis_line, draw(200), ads, schema).candidate
    later = cycle(first, at(draw(50, ads=2), 365), without(ads, 10), schema).candidate
    assert later.manifest.metrics["collected_user_values"] == 0
    assert later.manifest.metrics["collected_ad_values"] == 0


def test_a_retry_collects_the_same_values(
    genesis_line: Snapshot, draw: Draw, ads: AdSet, schema: Schema
) -> None:
    """Both attempts of a refused chunk leave the same rows behind, duals at the right ones."""
    begun, rest = cycle(genesis_line, draw(400), ads, schema).candidate, without(ads, 5)
    first = cycle(begun, at(draw(200, ads=5), 31), rest, schema).candidate
    chunk = at(draw(200, ads=5), 31.1)
    outcome = cycle(first, chunk, rest, schema, step_size=1e6)
    assert len(outcome.attempts) == 2
    assert [attempt.metrics["collected_ad_values"] for attempt in outcome.attempts] == [5, 5]
    accepted = cycle(first, chunk, rest, schema).candidate
    np.testing.assert_array_equal(outcome.candidate.state.ad.keys, accepted.state.ad.keys)


def test_turnover_does_not_make_the_tables_grow(schema: Schema) -> None:
    """Over sixty chunks of ads and users that come and go, the rows reach a level and stay."""
    brief = replace(schema, model=replace(schema.model, value_ttl_days=5.0))
    line = genesis_snapshot(
        brief, catalog(brief, np.zeros(0, np.int64)), snapshot_id=UUID(int=1), now_ms=0
    )
    counts = []
    for day in range(60):
        shown = np.arange(3 * day, 3 * day + 12)
        line = cycle(line, passing(brief, day, shown), catalog(brief, shown), brief).candidate
        counts.append((len(line.state.user), len(line.state.ad)))
    assert counts[20] == counts[-1]
    assert counts[-1][1] <= 12 + 6 * 3 + len(CATEGORIES)


def passing(schema: Schema, day: int, shown: Int64s) -> Batch:
    """A day's events: each of the day's ads once, to users of places that also come and go."""
    encoder, n = Encoder(schema), len(shown)
    users = [encoder.encode_user({"geo": f"g{day + i % 4}", "device": "d"}) for i in range(n)]
    labels = (np.arange(n) % 5 == 0).astype(np.float32)
    times = np.full(n, day * DAY_MS, np.int64)
    return Batch(times, shown, labels, stack(users, 3), catalog(schema, shown).features)


def catalog(schema: Schema, ids: Int64s) -> AdSet:
    """The ads of these ids."""
    encoder, n = Encoder(schema), len(ids)
    encoded = [
        encoder.encode_ad({"creative": int(i), "category": [CATEGORIES[i % 4]]}) for i in ids
    ]
    return AdSet(ids, np.zeros(n, np.int64), np.zeros(n, np.float32), stack(encoded, 2))


@pytest.mark.parametrize(("width", "user"), [(24, True), (84, False), (1, False)])
def test_bytes_of_a_value_are_those_of_its_arrays(width: int, user: bool) -> None:
    """The stated bytes are what the arrays take, of the trainer's state and of the served model."""
    rows = table(np.zeros(7, np.int64), width, 0)
    assert sum(getattr(rows, item.name).nbytes for item in fields(Table)) == 7 * row_bytes(width)
    wide = 4 * width + 8 + 4 + (1 if user else 4)
    assert published_bytes(width, user=user) == wide
    assert len(empty_table(width)) == 0


def test_another_ttl_is_the_same_line_of_snapshots() -> None:
    """The TTL gives no parameter its meaning, so it is no part of the schema's hash."""
    other = parse_schema(SCHEMA.replace("alone = 3", "alone = 3\nvalue_ttl_days = 7"))
    assert other.model.value_ttl_days == 7
    assert other.hash == PARSED.hash


@pytest.mark.parametrize("value", ["-1", "40000", "true", '"30"', "nan"])
def test_a_ttl_out_of_bounds_is_refused(value: str) -> None:
    """The message names the setting."""
    with pytest.raises(SchemaInvalid, match=r"model\.value_ttl_days"):
        parse_schema(SCHEMA.replace("alone = 3", f"alone = 3\nvalue_ttl_days = {value}"))
