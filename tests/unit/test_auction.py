"""The auction: who wins which slot and what it costs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.auction import Placed, auction, expected_cpm, price

Ads = list[tuple[float, int, bool]]

ads = st.lists(
    st.tuples(st.floats(1e-7, 0.999), st.integers(1, 10**9), st.booleans()),
    max_size=12,
)
slots = st.integers(1, 5)
floors = st.one_of(st.just(0), st.integers(1, 10**9))


def run(some: Ads, count: int, floor_micros: int) -> list[Placed]:
    pctr = np.array([ad[0] for ad in some], np.float64)
    bids = np.array([ad[1] for ad in some], np.int64)
    per_click = np.array([ad[2] for ad in some], np.bool_)
    ids = np.arange(len(some), dtype=np.int64) + 1
    return auction(ids, pctr, bids, per_click, slots=count, floor_micros=floor_micros)


def ecpm(ad: tuple[float, int, bool], bid: int | None = None) -> float:
    paid = ad[1] if bid is None else bid
    return 1000.0 * ad[0] * paid if ad[2] else float(paid)


@given(ads, slots, floors)
@settings(max_examples=300)
def test_no_price_is_above_its_bid_or_below_what_is_needed(
    some: Ads, count: int, floor_micros: int
) -> None:
    """1 ≤ price ≤ bid, and at its price each winner still reaches the floor and the next ad."""
    placed = run(some, count, floor_micros)
    for at, winner in enumerate(placed):
        ad = some[winner.candidate]
        reached = ecpm(ad, winner.price_micros)
        assert 1 <= winner.price_micros <= ad[1]
        assert reached >= floor_micros
        assert at + 1 >= len(placed) or reached >= ecpm(some[placed[at + 1].candidate])


@given(ads, slots, floors)
@settings(max_examples=300)
def test_a_micro_less_would_not_be_enough(some: Ads, count: int, floor_micros: int) -> None:
    """Prices are the least whole micros that do: one less falls below the next ad or the floor."""
    ranking = sorted(range(len(some)), key=lambda at: (-ecpm(some[at]), at))
    placed = run(some, count, floor_micros)
    for at, winner in enumerate(placed):
        assert winner.candidate == ranking[at]
        if winner.price_micros > 1:
            following = [ecpm(some[other]) for other in ranking[at + 1 : at + 2]]
            need = max([float(floor_micros), *following])
            assert ecpm(some[winner.candidate], winner.price_micros - 1) < need


@given(ads.filter(bool), slots, floors, st.integers(1, 10**6), st.data())
@settings(max_examples=300)
def test_raising_a_bid_never_loses_a_slot(
    some: Ads, count: int, floor_micros: int, more: int, data: st.DataObject
) -> None:
    """An ad that bids more stands at the same place or better."""
    raised = data.draw(st.integers(0, len(some) - 1))
    after = list(some)
    after[raised] = (some[raised][0], some[raised][1] + more, some[raised][2])
    places = [
        [winner.candidate for winner in run(listed, count, floor_micros)]
        for listed in (some, after)
    ]
    if raised in places[0]:
        assert places[1].index(raised) <= places[0].index(raised)


def test_equal_ecpm_ranks_by_id() -> None:
    """Ties are broken by the smaller id, wherever it stands among the candidates."""
    placed = auction(
        np.array([9, 4, 7]),
        np.full(3, 0.25),
        np.full(3, 1000),
        np.ones(3, np.bool_),
        slots=3,
        floor_micros=0,
    )
    assert [winner.candidate for winner in placed] == [1, 2, 0]


def test_equal_pctr_pays_exactly_the_next_bid() -> None:
    """With equal pCTR the price is the next bid itself, no micro more from rounding."""
    random = np.random.default_rng(0)
    for pctr, bid in zip(random.random(2000) + 1e-6, random.integers(1, 10**9, 2000), strict=True):
        assert price(1000.0 * pctr * int(bid), 1000.0 * pctr, int(bid) + 5) == bid


def test_an_ad_below_the_floor_takes_no_slot_and_sets_no_price() -> None:
    """The only ad above the floor pays the floor, not what the ad below it bid."""
    placed = run([(0.1, 1000, True), (0.1, 400, True)], 2, 50_000)
    assert [(winner.candidate, winner.price_micros) for winner in placed] == [(0, 500)]


def test_without_rival_or_floor_a_click_costs_one_micro() -> None:
    """Nothing forces a price, yet no slot is free."""
    assert [winner.price_micros for winner in run([(0.1, 1000, True)], 3, 0)] == [1]


def test_a_cpm_ad_pays_the_next_ecpm_per_thousand() -> None:
    """A CPM winner pays e, whole micros rounded up; its own eCPM is its bid."""
    placed = run([(0.5, 90_000, False), (0.0333, 1001, True)], 1, 0)
    assert placed == [Placed(0, 90_000, math.ceil(1000 * 0.0333 * 1001))]


def test_a_cpc_ad_pays_the_cpm_bid_over_its_own_rate() -> None:
    """A CPC winner above a CPM ad pays that bid divided by 1000 · pCTR."""
    placed = run([(0.25, 1000, True), (0.9, 100_000, False)], 1, 0)
    assert [winner.price_micros for winner in placed] == [400]


def test_no_candidates_fill_no_slot() -> None:
    """An empty auction is an empty answer."""
    assert run([], 3, 0) == []
    assert expected_cpm(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_)).shape == (0,)
