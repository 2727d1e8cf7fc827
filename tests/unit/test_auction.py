"""The auction: who wins which slot and what it costs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.auction import (
    Candidates,
    Placed,
    auction,
    candidates_needed,
    expected_cpm,
    most_of_one,
    price,
    within_limit,
)

_ROUNDING = 1e-15
"""By so much of it float64 may miss what a CPC ad pays; a CPM ad's price is its eCPM."""

Ad = tuple[float, int, bool, int]
Ads = list[Ad]

ads = st.lists(
    st.tuples(st.floats(1e-7, 0.999), st.integers(1, 10**13), st.booleans(), st.integers(1, 4)),
    max_size=12,
)
slots = st.integers(1, 5)
limits = st.integers(1, 6)
floors = st.one_of(st.just(0), st.integers(1, 10**9), st.integers(10**9, 10**13))


def candidates_of(some: Ads) -> Candidates:
    return Candidates(
        np.arange(len(some), dtype=np.int64) + 1,
        np.array([ad[3] for ad in some], np.int64),
        np.array([ad[1] for ad in some], np.int64),
        np.array([ad[2] for ad in some], np.bool_),
        np.array([ad[0] for ad in some], np.float64),
    )


def run(some: Ads, count: int, floor_micros: int, limit: int = 1) -> list[Placed]:
    return auction(
        candidates_of(some), slots=count, floor_micros=floor_micros, per_advertiser=limit
    )


def each(*some: tuple[float, int, bool]) -> Ads:
    """Ads of one advertiser each."""
    return [(*ad, owner) for owner, ad in enumerate(some, 1)]


def needed(some: Ads, placed: list[Placed], place: int, floor_micros: int, limit: int) -> float:
    """What the winner of a place has to reach, from the words of the rule: try every other ad."""
    winner = some[placed[place].candidate]
    before = [won.candidate for won in placed[:place]]
    rivals = [
        ecpm(ad)
        for at, ad in enumerate(some)
        if at not in before and ad[3] != winner[3] and ecpm(ad) >= floor_micros
        if sum(some[other][3] == ad[3] for other in before) < limit
    ]
    return max([float(floor_micros), *rivals])


def ecpm(ad: Ad, bid: int | None = None) -> float:
    paid = ad[1] if bid is None else bid
    return 1000.0 * ad[0] * paid if ad[2] else float(paid)


@given(ads, slots, floors, limits)
@settings(max_examples=300)
def test_no_price_is_above_its_bid_or_below_what_is_needed(
    some: Ads, count: int, floor_micros: int, limit: int
) -> None:
    """1 ≤ price ≤ bid, and at its price each winner reaches the floor and the next advertiser."""
    placed = run(some, count, floor_micros, limit)
    for place, winner in enumerate(placed):
        ad = some[winner.candidate]
        reached = ecpm(ad, winner.price_micros) * (1 + _ROUNDING * ad[2])
        assert 1 <= winner.price_micros <= ad[1]
        assert reached >= floor_micros
        assert reached >= needed(some, placed, place, floor_micros, limit)


@given(ads, slots, floors, limits)
@settings(max_examples=300)
def test_a_micro_less_would_not_be_enough(
    some: Ads, count: int, floor_micros: int, limit: int
) -> None:
    """Prices are the least whole micros that do: one less falls below the next ad or the floor."""
    placed = run(some, count, floor_micros, limit)
    for place, winner in enumerate(placed):
        if winner.price_micros > 1:
            need = needed(some, placed, place, floor_micros, limit)
            assert ecpm(some[winner.candidate], winner.price_micros - 1) < need


@given(ads, slots, floors, limits)
@settings(max_examples=300)
def test_places_fall_by_ecpm_and_nobody_passed_over_is_better(
    some: Ads, count: int, floor_micros: int, limit: int
) -> None:
    """Ranks equal eCPM order, and who is left out is worse than the last one, barred or too low."""
    placed = run(some, count, floor_micros, limit)
    won = [winner.candidate for winner in placed]
    order = [(-ecpm(some[at]), at) for at in won]
    assert order == sorted(order)
    assert max([0, *Counter(some[at][3] for at in won).values()]) <= limit
    for at, ad in enumerate(some):
        better = [other for other in won if (-ecpm(some[other]), other) < (-ecpm(ad), at)]
        barred = sum(some[other][3] == ad[3] for other in better) >= limit
        assert at in won or len(better) == count or barred or ecpm(ad) < floor_micros


@given(ads, slots, floors, limits)
@settings(max_examples=300)
def test_the_best_few_under_the_limit_give_the_whole_auction(
    some: Ads, count: int, floor_micros: int, limit: int
) -> None:
    """With as many candidates as are asked for, winners and prices are those of all ads."""
    order = sorted(range(len(some)), key=lambda at: (-ecpm(some[at]), at))
    kept = within_limit(order, [ad[3] for ad in some], most_of_one(count, limit))
    few = sorted(kept[: candidates_needed(count, limit)])
    whole = run(some, count, floor_micros, limit)
    part = run([some[at] for at in few], count, floor_micros, limit)
    assert [(few[won.candidate], won.price_micros) for won in part] == [
        (won.candidate, won.price_micros) for won in whole
    ]


@given(ads.filter(bool), slots, floors, limits, st.integers(1, 10**6), st.data())
@settings(max_examples=300)
def test_raising_a_bid_never_loses_a_slot(
    some: Ads, count: int, floor_micros: int, limit: int, more: int, data: st.DataObject
) -> None:
    """An ad that bids more stands at the same place or better."""
    raised = data.draw(st.integers(0, len(some) - 1))
    after = list(some)
    pctr, bid, per_click, owner = some[raised]
    after[raised] = (pctr, bid + more, per_click, owner)
    places = [
        [winner.candidate for winner in run(listed, count, floor_micros, limit)]
        for listed in (some, after)
    ]
    if raised in places[0]:
        assert places[1].index(raised) <= places[0].index(raised)


def test_equal_ecpm_ranks_by_id() -> None:
    """Ties are broken by the smaller id, wherever it stands among the candidates."""
    rates, bids, per_click = np.full(3, 0.25), np.full(3, 1000), np.ones(3, np.bool_)
    tied = Candidates(np.array([9, 4, 7]), np.arange(3), bids, per_click, rates)
    placed = auction(tied, slots=3, floor_micros=0, per_advertiser=1)
    assert [winner.candidate for winner in placed] == [1, 2, 0]


def test_equal_pctr_pays_exactly_the_next_bid() -> None:
    """With equal pCTR the price is the next bid itself, no micro more from rounding."""
    random = np.random.default_rng(0)
    for pctr, bid in zip(random.random(2000) + 1e-6, random.integers(1, 10**9, 2000), strict=True):
        assert price(1000.0 * pctr * int(bid), 1000.0 * pctr, int(bid) + 5) == bid


def test_an_ad_below_the_floor_takes_no_slot_and_sets_no_price() -> None:
    """The only ad above the floor pays the floor, not what the ad below it bid."""
    placed = run(each((0.1, 1000, True), (0.1, 400, True)), 2, 50_000)
    assert [(winner.candidate, winner.price_micros) for winner in placed] == [(0, 500)]


def test_without_rival_or_floor_a_click_costs_one_micro() -> None:
    """Nothing forces a price, yet no slot is free."""
    assert [winner.price_micros for winner in run(each((0.1, 1000, True)), 3, 0)] == [1]


def test_a_cpm_ad_pays_the_next_ecpm_per_thousand() -> None:
    """A CPM winner pays e, whole micros rounded up; its own eCPM is its bid."""
    placed = run(each((0.5, 90_000, False), (0.0333, 1001, True)), 1, 0)
    assert placed == [Placed(0, 90_000, math.ceil(1000 * 0.0333 * 1001))]


def test_a_cpc_ad_pays_the_cpm_bid_over_its_own_rate() -> None:
    """A CPC winner above a CPM ad pays that bid divided by 1000 · pCTR."""
    placed = run(each((0.25, 1000, True), (0.9, 100_000, False)), 1, 0)
    assert [winner.price_micros for winner in placed] == [400]


def test_an_advertisers_own_ads_set_it_no_price() -> None:
    """Whether the limit bars its second ad or not, the winner pays what another's ad is worth."""
    some: Ads = [(0.1, 1000, True, 1), (0.1, 900, True, 1), (0.1, 300, True, 2)]
    assert [winner.price_micros for winner in run(some, 2, 0, limit=1)] == [300, 1]
    assert [winner.price_micros for winner in run(some, 2, 0, limit=2)] == [300, 300]


def test_a_barred_ad_sets_nobody_a_price() -> None:
    """The second slot's winner is not held to a third ad whose advertiser has its share."""
    some: Ads = [(0.1, 1000, True, 1), (0.1, 900, True, 2), (0.1, 800, True, 1)]
    assert [winner.price_micros for winner in run(some, 2, 0, limit=1)] == [900, 1]


def test_no_candidates_fill_no_slot() -> None:
    """An empty auction is an empty answer."""
    assert run([], 3, 0) == []
    assert expected_cpm(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.bool_)).shape == (0,)


@given(st.integers(1, 2**53 - 1), st.integers(0, 1000))
def test_a_cpm_ad_never_pays_less_than_the_floor(floor_micros: int, more: int) -> None:
    """However large the floor, its price is the floor to the micro."""
    bid = min(floor_micros + more, 2**53 - 1)
    assert [won.price_micros for won in run(each((0.5, bid, False)), 1, floor_micros)] == [
        floor_micros
    ]


@given(st.floats(1e-7, 0.999), st.integers(1, 2**53 - 1))
def test_a_cpc_ad_pays_the_floor_but_for_rounding(pctr: float, floor_micros: int) -> None:
    """Its paid eCPM misses a floor of any size by no more than float64 rounds."""
    bid = math.ceil(floor_micros / (1000.0 * pctr)) + 10
    [won] = run(each((pctr, bid, True)), 1, floor_micros)
    assert 1000.0 * pctr * won.price_micros >= floor_micros * (1 - _ROUNDING)
