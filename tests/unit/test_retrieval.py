"""Retrieval by the index equals brute force over the live catalog."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.bitmaps import among
from app.serving.live import LiveCatalog
from app.serving.retrieval import Searchable, UserSide, retrieve, tangent_at
from models.index import AdIndex, packed
from models.offset import Model
from models.types import Ad
from tests.unit import market

RELATIVE = 1e-9
"""Brute force sums in another order: its last digits may differ."""


def side(used: Model, user: market.User) -> UserSide:
    latent, main = used.user_vector(market.ENCODER.encode_user(user))
    return UserSide(latent, used.bias + main)


def check(
    live: LiveCatalog,
    ads: list[Ad],
    used: Model,
    user: market.User,
    count: int,
    limit: int | None = None,
) -> None:
    """The ads found are the `count` best of those that may serve, ties allowed for."""
    mask = live.eligibility.mask(user, market.NOW)
    # These models promise nothing, so nothing is held to a promise.
    searchable = replace(live.searchable, promise=(-np.inf, np.inf))
    found = retrieve(searchable, mask, side(used, user), count, per_advertiser=limit)
    eligible = [item for item in ads if market.serves(item, user)]
    values = market.ecpm(eligible, used, user)
    owners = {item.id: item.advertiser_id for item in eligible}
    ids = live.columns.ad_ids[found.rows].tolist()
    best = limited(values, owners, limit)[:count]
    assert found.certified
    assert len(set(ids)) == len(ids) == len(best)
    assert max(Counter(owners[key] for key in ids).values(), default=0) <= (limit or len(ids))
    np.testing.assert_allclose([values[key] for key in ids], best, rtol=RELATIVE)


def limited(values: dict[int, float], owners: dict[int, int], limit: int | None) -> list[float]:
    """The values from the best on, of one owner at most `limit`."""
    taken: Counter[int] = Counter()
    found = []
    for key in sorted(values, key=lambda key: -values[key]):
        taken[owners[key]] += 1
        if limit is None or taken[owners[key]] <= limit:
            found.append(values[key])
    return found


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(0, 399),
    count=st.one_of(st.integers(1, 12), st.integers(1, 200)),
    scale=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    bias=st.sampled_from([-6.0, -2.0, 2.0]),
    indexed=st.floats(0, 1),
    changed=st.integers(0, 40),
    limit=st.sampled_from([None, 1, 2, 30]),
)
@settings(max_examples=150, deadline=None)
def test_retrieval_equals_brute_force(
    seed: int,
    size: int,
    count: int,
    scale: float,
    bias: float,
    indexed: float,
    changed: int,
    limit: int | None,
) -> None:
    """Whatever was indexed and whatever changed since, the live best come back, certified."""
    used, random = market.model(seed % 7, scale, bias), np.random.default_rng(seed)
    ads = market.random_ads(size, seed)
    index = market.index_of([item for item in ads if random.random() < indexed], used)
    live = LiveCatalog.load(market.changes(1, ads), index, used, market.ENCODER)
    latest = {item.id: item for item in ads}
    for key in random.integers(1, 400, changed).tolist():
        latest[key] = replace(market.random_ad(key, random), features_version=2)
    live = live.apply(market.changes(2, list(latest.values())))
    user: market.User = {"geo": str(random.choice(market.GEO)), "hour": int(random.integers(24))}
    check(live, list(latest.values()), used, user, count, limit)


def large(scale: float, rank: int | None, rows: int = 20_000) -> tuple[Searchable, Model]:
    """A catalog large enough for every step; its vectors span `rank` dimensions, or all."""
    random = np.random.default_rng(3)
    width = market.SCHEMA.dimensions + 2
    vectors = scale * random.standard_normal((rows, rank or width))
    if rank:
        vectors = vectors @ random.standard_normal((rank, width)) / np.sqrt(rank)
    spread = min(1.2, 3 * scale)  # narrow scores and bids: rivals within the bound's slack
    bids = np.exp(12 + spread * random.standard_normal(rows)).astype(np.int64)
    vectors[:, -1] = np.log(bids)
    ids = np.arange(rows, dtype=np.int64)
    searchable = Searchable(
        index=AdIndex.build(ids, ids, vectors),
        composed_at=np.full(rows, -1),
        composed=np.zeros((0, vectors.shape[1]), np.float32),
        always=ids[:0],
        bounded=packed(np.ones(rows, np.bool_)),
        by_bid=ids[:0],
        ad_ids=ids,
        bid_micros=bids,
        per_click=np.ones(rows, np.bool_),
        advertisers=random.integers(0, rows // 30, rows) * random.integers(0, 2, rows),
    )
    return searchable, market.model(1, scale)


KINDS = ((0.0005, None), (0.05, 5), (0.4, 3), (0.4, None), (1.5, None))
LARGE = {kind: large(*kind) for kind in KINDS}


@given(
    st.sampled_from(list(LARGE)),
    st.sampled_from([1.0, 0.3, 0.1, 0.03, 0.02, 0.001, 0.0001, 0.0]),
    st.one_of(st.integers(1, 12), st.integers(1, 200)),
    st.sampled_from([0, 10**6, 10**8, 10**10]),
    st.sampled_from([None, 1, 2, 10]),
    st.integers(0, 1000),
)
@settings(max_examples=250, deadline=None)
def test_a_large_catalog_is_searched_exactly(
    kind: tuple[float, int | None],
    selectivity: float,
    count: int,
    floor_micros: int,
    limit: int | None,
    seed: int,
) -> None:
    """From all ads eligible to none, wide and narrow scores, with and without floor and limit.

    Half of the ads are one advertiser's.
    """
    searchable, used = LARGE[kind]
    random = np.random.default_rng(seed)
    keep = random.random(len(searchable.ad_ids)) < selectivity
    user = side(used, {"geo": "us", "hour": seed % 24})
    found = retrieve(searchable, packed(keep), user, count, floor_micros, limit)
    vectors = searchable.index.vectors[:, :-1].astype(np.float64)
    scores = vectors @ np.append(user.latent.astype(np.float64), 1.0) + user.offset
    values = 1000.0 / (1.0 + np.exp(-scores)) * searchable.bid_micros
    able = np.flatnonzero(keep & (values >= floor_micros))
    owners = searchable.advertisers
    assert owners is not None
    best = limited(*({key: of[key] for key in able} for of in (values, owners)), limit)[:count]
    assert found.certified
    assert keep[found.rows].all()
    assert limit is None or max(Counter(owners[found.rows]).values(), default=0) <= limit
    np.testing.assert_allclose(values[found.rows][: len(best)], best, rtol=RELATIVE)


@given(st.sampled_from(list(LARGE)), st.floats(-30, 30), st.integers(0, 23), st.floats(-9, 3))
@settings(max_examples=100, deadline=None)
def test_the_bound_holds_for_every_ad_and_touches_at_its_point(
    kind: tuple[float, int | None], at: float, hour: int, bias: float
) -> None:
    """At any s₀ no ad's log eCPM is above the tangent's bound; at s = s₀ they meet."""
    searchable, used = LARGE[kind]
    user = replace(side(used, {"geo": "ca", "hour": hour}), offset=bias)
    tangent = tangent_at(user, at)
    asked = searchable.index.bounds.asked(tangent.latent, tangent.slope)
    rows = np.arange(len(searchable.ad_ids))
    scores = searchable.scores(rows, user)
    exact = np.log(searchable.bid_micros[rows]) - np.logaddexp(0.0, -scores)
    whole = searchable.index.vectors.astype(np.float64)
    bound = tangent.constant + whole @ np.append(tangent.latent, (tangent.slope, 1.0))
    assert (bound + 1e-5 >= exact).all()
    by_axes = np.empty(len(rows))
    by_axes[searchable.index.bounds.order] = asked.at(0, len(rows))
    assert (tangent.constant + asked.shift + by_axes >= exact).all()
    nearest = np.abs(scores - at).argmin()
    if abs(scores[nearest] - at) < 0.01:
        assert bound[nearest] - exact[nearest] < 0.01


@pytest.mark.parametrize("noise", [1e-5, 1e-3, 0.1])
def test_rivals_within_a_hair_are_all_looked_at(noise: float) -> None:
    """Bids that offset wide scores leave every ad a rival: the second pass must miss none."""
    searchable, used = LARGE[0.4, None]
    user, rows = side(used, market.USER), len(searchable.ad_ids)
    scores = searchable.scores(np.arange(rows), user)
    log_bid = 16 + np.logaddexp(0.0, -scores) + noise * np.random.default_rng(1).random(rows)
    bids = np.exp(log_bid).astype(np.int64)
    vectors = np.column_stack((searchable.index.vectors[:, :-1], np.log(bids)))
    index = AdIndex.build(searchable.ad_ids, searchable.ad_ids, vectors)
    even = replace(searchable, index=index, bid_micros=bids)
    values = 1000.0 / (1.0 + np.exp(-scores)) * bids
    found = retrieve(even, packed(np.ones(rows, np.bool_)), user, 25)
    np.testing.assert_allclose(values[found.rows], np.sort(values)[::-1][:25], rtol=RELATIVE)


def test_an_ad_newer_than_the_index_keeps_the_promise() -> None:
    """The certificate covers the index's ads; one that came later is held to the same range."""
    used = market.model(1, 2.0)
    ads = market.random_ads(60, 1)
    live = LiveCatalog.load(market.changes(1, ads), market.index_of([], used), used, market.ENCODER)
    rows = np.arange(60)
    free = replace(live.searchable, promise=(-np.inf, np.inf))
    held = replace(live.searchable, promise=(-1.0, 0.5))
    wide, narrow = (one.scores(rows, side(used, market.USER)) for one in (free, held))
    assert wide.min() < -1.0
    assert wide.max() > 0.5
    np.testing.assert_array_equal(narrow, np.clip(wide, -1.0, 0.5))


def test_as_many_come_out_as_are_eligible() -> None:
    """With more slots than eligible ads every eligible ad comes out."""
    searchable, used = LARGE[0.4, None]
    for eligible in (0, 1, 5, 150, 199):
        keep = np.zeros(len(searchable.ad_ids), np.bool_)
        keep[np.random.default_rng(eligible).permutation(len(keep))[:eligible]] = True
        found = retrieve(searchable, packed(keep), side(used, market.USER), 200)
        assert sorted(found.rows.tolist()) == np.nonzero(keep)[0].tolist()


def test_equal_ads_come_in_the_order_of_their_ids() -> None:
    """Ads with equal vectors and bids tie to the bit, and the smaller id is first."""
    used = market.model(1)
    ads = [market.ad(key, campaign_id=3, bid_micros=5000, features={}) for key in range(500, 900)]
    live = LiveCatalog.load(market.changes(1, ads), None, used, market.ENCODER)
    mask = live.eligibility.mask(market.USER, market.NOW)
    found = retrieve(live.searchable, mask, side(used, market.USER), 7)
    assert live.columns.ad_ids[found.rows].tolist() == list(range(500, 507))


@pytest.mark.parametrize("length", [0.01, 1.0, 30.0])
def test_the_length_that_orders_the_index_changes_no_answer(length: float) -> None:
    """Whatever user the order was made for, every user gets the same ads."""
    searchable, used = LARGE[0.4, 3]
    index = searchable.index
    other = AdIndex.build(index.ad_ids, index.features_version, index.vectors, length)
    mask, user = packed(np.ones(len(index), np.bool_)), side(used, market.USER)
    found = [retrieve(replace(searchable, index=one), mask, user, 40) for one in (index, other)]
    np.testing.assert_array_equal(found[0].rows, found[1].rows)


def test_few_ads_are_scored_for_an_answer() -> None:
    """Vectors of few dimensions, as training makes them: few of 20,000 are scored."""
    searchable, used = LARGE[0.05, 5]
    mask = packed(np.ones(len(searchable.ad_ids), np.bool_))
    found = retrieve(searchable, mask, side(used, market.USER), 10)
    assert found.scored < 200


def test_a_floor_that_few_reach_spares_the_others() -> None:
    """What is below the floor need not be scored, however few there are above it."""
    searchable, used = LARGE[0.4, 3]
    mask, user = packed(np.ones(len(searchable.ad_ids), np.bool_)), side(used, market.USER)
    best = retrieve(searchable, mask, user, 5)
    factor = 1000.0 * best.pctr[-1]
    floor = int(factor * searchable.bid_micros[best.rows[-1]]) - 1
    free, held = (retrieve(searchable, mask, user, 200, one) for one in (0, floor))
    np.testing.assert_array_equal(held.rows[:5], best.rows)
    assert held.scored < free.scored


def test_an_advertiser_of_the_best_hundreds_leaves_room_for_others() -> None:
    """The limit is kept when the one advertiser's ads are very many and all of them better."""
    searchable, used = LARGE[0.4, 3]
    mask, user = packed(np.ones(len(searchable.ad_ids), np.bool_)), side(used, market.USER)
    best = retrieve(searchable, mask, user, 404).rows
    owners = np.arange(len(searchable.ad_ids))
    owners[best[:400]] = -1
    owned = replace(searchable, advertisers=owners)
    found = retrieve(owned, mask, user, 5, per_advertiser=1)
    assert found.rows.tolist() == [best[0], *best[400:]]


def test_cpm_ads_beyond_the_limit_make_room_for_others() -> None:
    """An advertiser's many CPM ads with the highest bids do not hide the next advertiser's."""
    used = market.model(1)
    ads = [
        market.ad(key, bid_type="cpm", bid_micros=10**9 - key, advertiser_id=1 + key // 350)
        for key in range(1, 400)
    ]
    live = LiveCatalog.load(market.changes(1, ads), None, used, market.ENCODER)
    mask = live.eligibility.mask(market.USER, market.NOW)
    found = retrieve(live.searchable, mask, side(used, market.USER), 5, per_advertiser=2)
    assert live.columns.ad_ids[found.rows].tolist() == [1, 2, 350, 351]


def test_a_raised_bid_is_found_and_a_lowered_one_is_not_overrated() -> None:
    """The index keeps the old bids: ranking follows the live ones in both directions."""
    used = market.model(2)
    ads = [market.ad(key) for key in range(1, 400)]
    live = LiveCatalog.load(
        market.changes(1, ads), market.index_of(ads, used), used, market.ENCODER
    )
    changed = [replace(item, bid_micros=1 + item.bid_micros * (item.id % 3)) for item in ads]
    live = live.apply(market.changes(2, changed))
    assert among(live.searchable.bounded, np.arange(len(ads))).any()
    check(live, changed, used, market.USER, 20)
