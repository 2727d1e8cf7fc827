"""Slots for new ads: which decisions have one, who gets it, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from app.serving import pipeline
from app.serving.bitmaps import size_of
from app.serving.bundle import Bundle
from app.serving.pipeline import DecisionQuery
from app.serving.tokens import Tokens
from app.serving.trial import Exploration, Trials
from models.types import Ad
from tests.unit import market

TOKENS = Tokens({1: bytes(32)}, 1, 3_600_000)
DECISIONS = [UUID(int=(1 << 127) + number) for number in range(60)]
ADS = [market.ad(key, advertiser_id=key) for key in range(1, 200)]
NEW = {*range(1, 200, 10)}


def bundle_of(ads: list[Ad]) -> Bundle:
    """A bundle over a model that knows all ads well but those of `NEW`."""
    used = market.model(1)
    variance = np.full(len(used.ad_keys), 0.001, np.float32)
    for key in NEW:
        own = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(key))).ids[0]
        variance[used.ad_keys.searchsorted(own)] = 0.3
    known = replace(used, ad_variance=variance, ad_prior_variance=np.array([0.3, 0.1, 0.1]))
    return market.bundle_of(ads, known)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """All of `ADS`, indexed."""
    return bundle_of(ADS)


def decide(
    bundle: Bundle, decision: UUID, share: float, tried: dict[int, int] | None = None, **asked: int
) -> pipeline.Decision:
    query = DecisionQuery(market.USER, **{"slots": 4, "per_advertiser": 1, **asked})
    exploration = Exploration(share, 10, tried or {})
    return pipeline.decide(bundle, query, market.NOW, decision, TOKENS, exploration)


def test_a_trial_changes_the_last_slot_alone(bundle: Bundle) -> None:
    """Ads, prices and order above it are those without exploration; the new ad pays the floor."""
    for decision in DECISIONS:
        usual, trial = (decide(bundle, decision, share).ads for share in (0.0, 1.0))
        assert [(ad.ad_id, ad.price_micros) for ad in trial[:-1]] == [
            (ad.ad_id, ad.price_micros) for ad in usual[:-1]
        ]
        last = trial[-1]
        assert last.explored
        assert last.ad_id in NEW - {ad.ad_id for ad in usual[:-1]}
        assert last.price_micros == 1
        assert not any(ad.explored for ad in usual)


def test_the_floor_holds_for_a_trial(bundle: Bundle) -> None:
    """A new ad below the floor is not tried; one above it pays the floor."""
    usual = decide(bundle, DECISIONS[0], 0.0).ads
    floor = usual[-1].ecpm_micros
    for decision in DECISIONS:
        for ad in decide(bundle, decision, 1.0, floor_micros=floor).ads:
            assert ad.ecpm_micros >= floor
            paid = 1000 * ad.pctr * ad.price_micros
            assert not ad.explored or floor <= paid * (1 + 1e-9) < floor + 1001 * ad.pctr


def test_the_budget_is_a_share_of_all_slots(bundle: Bundle) -> None:
    """Of a thousand decisions with four slots, four times the share are trials."""
    decisions = [UUID(int=(5 << 120) + number) for number in range(1000)]
    explored = sum(decide(bundle, decision, 0.02).ads[-1].explored for decision in decisions)
    assert 80 - 4 * 9 < explored < 80 + 4 * 9


def test_a_token_carries_the_trial_and_its_probability(bundle: Bundle) -> None:
    """The propensities of one slot's ads sum to 1 over what may stand there."""
    seen: dict[int, float] = {}
    for number in range(3000):
        decision = UUID(int=(9 << 120) + number)
        ad = decide(bundle, decision, 0.1).ads[-1]
        content = TOKENS.open(ad.token, market.NOW)
        assert content.explored == ad.explored
        seen[ad.ad_id] = content.propensity
    assert sum(seen.values()) == pytest.approx(1.0, abs=0.02)
    first = decide(bundle, DECISIONS[0], 0.1).ads[0]
    assert TOKENS.open(first.token, market.NOW).propensity == 1.0


def test_an_ad_is_tried_so_often_and_no_more(bundle: Bundle) -> None:
    """An ad whose trials are used up waits for the next snapshot."""
    spent = {key: 10 for key in NEW if key != 11}
    for decision in DECISIONS:
        last = decide(bundle, decision, 1.0, spent).ads[-1]
        assert last.ad_id == 11 or not last.explored


def test_trials_are_counted_anew_under_each_snapshot() -> None:
    """Counts add up under one snapshot and start again with the next."""
    trials = Trials()
    for _ in range(2):
        trials.under(UUID(int=1))
        trials.add(5)
    assert trials.under(UUID(int=1)) == {5: 2}
    assert trials.under(UUID(int=2)) == {}


def test_the_advertisers_limit_holds_for_a_trial() -> None:
    """A new ad of an advertiser that has its slot already is not tried."""
    plain = bundle_of(ADS)
    winner = decide(plain, DECISIONS[0], 0.0).ads[0].ad_id
    owned = [replace(ad, advertiser_id=winner) if ad.id in NEW else ad for ad in ADS]
    limited = bundle_of(owned)
    for decision in DECISIONS:
        page = decide(limited, decision, 1.0).ads
        owners = [owned[ad.ad_id - 1].advertiser_id for ad in page]
        assert len(set(owners)) == len(owners)


def test_raising_a_bid_never_loses_the_page(bundle: Bundle) -> None:
    """An ad that was shown, tried or not, is shown when it bids more."""
    for decision in DECISIONS[:20]:
        for ad in decide(bundle, decision, 1.0).ads:
            more = replace(ADS[ad.ad_id - 1], bid_micros=ADS[ad.ad_id - 1].bid_micros * 3)
            raised = bundle.with_live(bundle.live.apply(market.changes(2, [more])))
            after = decide(raised, decision, 1.0).ads
            assert ad.ad_id in [one.ad_id for one in after]


def test_a_new_ad_can_be_tried_before_it_is_indexed(bundle: Bundle) -> None:
    """An ad that came after the snapshot is new; a paused one is not tried."""
    fresh = market.ad(500, advertiser_id=500, bid_micros=120_000)
    others = [replace(ADS[key - 1], state="paused") for key in NEW]
    live = bundle.live.apply(market.changes(2, [fresh, *others]))
    with_it = bundle.with_live(live)
    lasts = {decide(with_it, decision, 1.0).ads[-1].ad_id for decision in DECISIONS}
    usual = decide(with_it, DECISIONS[0], 0.0).ads[-1].ad_id
    assert lasts == {500} != {usual}


def test_lots_decide_among_very_many_new_ads() -> None:
    """Of thousands 256 are drawn each time; no barred or spent ad is tried, and a token's
    propensity counts the draw."""
    many = [market.ad(key, advertiser_id=key % 50 + 1) for key in range(1, 4_400)]
    used = market.model(1)
    unsure = np.full(len(used.ad_keys), 0.3, np.float32)
    used = replace(used, ad_variance=unsure, ad_prior_variance=np.full(3, 0.3))
    crowd = market.bundle_of(many, used)
    assert size_of(crowd.live.new) > 4_096
    tried = set()
    for decision in DECISIONS:
        page = decide(crowd, decision, 1.0, floor_micros=1).ads
        owners = [many[ad.ad_id - 1].advertiser_id for ad in page]
        assert len(set(owners)) == len(owners)
        if page[-1].explored:
            tried.add(page[-1].ad_id)
            content = TOKENS.open(page[-1].token, market.NOW)
            assert content.propensity <= 256 / 4_096
    assert len(tried) > 20


def propensity(bundle: Bundle, decision: UUID, share: float, **asked: int) -> float:
    """Of the last slot's ad."""
    last = decide(bundle, decision, share, **asked).ads[-1]
    return TOKENS.open(last.token, market.NOW).propensity


def test_a_page_that_is_not_full_tries_nothing() -> None:
    """An empty slot means that nobody was passed over but for a limit."""
    some = [market.ad(2, advertiser_id=2, bid_micros=10**8)]
    some += [market.ad(key, advertiser_id=1) for key in (1, 11, 21, 31)]
    few = bundle_of(some)
    for decision in DECISIONS[:10]:
        page = decide(few, decision, 1.0).ads
        assert len(page) == 2
        assert not any(ad.explored for ad in page)
        assert propensity(few, decision, 1.0) == propensity(few, decision, 0.1) == 1.0


def test_a_limit_of_two_leaves_room_for_a_trial(bundle: Bundle) -> None:
    """An advertiser with one ad above may have a second one tried."""
    winner = decide(bundle, DECISIONS[0], 0.0).ads[0].ad_id
    cheap = [
        replace(ad, advertiser_id=winner, bid_micros=500) if ad.id in NEW - {winner} else ad
        for ad in ADS
    ]
    owned = bundle_of(cheap)
    for decision in DECISIONS[:10]:
        assert decide(owned, decision, 1.0, per_advertiser=2).ads[-1].explored
        assert not decide(owned, decision, 1.0, per_advertiser=1).ads[-1].explored


def test_the_usual_winner_is_not_what_a_trial_picks(bundle: Bundle) -> None:
    """A trial is of an ad that would not be there otherwise, with one slot as with several."""
    others = [replace(ADS[key - 1], state="paused") for key in NEW - {11, 21}]
    dear = replace(ADS[10], bid_micros=10**9)
    there = bundle.with_live(bundle.live.apply(market.changes(2, [dear, *others])))
    assert decide(there, DECISIONS[0], 0.0, slots=1).ads[-1].ad_id == 11
    for decision in DECISIONS[:20]:
        [ad] = decide(there, decision, 1.0, slots=1).ads
        assert (ad.ad_id, ad.explored) == (21, True)
        assert propensity(there, decision, 0.1, slots=1) == pytest.approx(
            0.1 if decide(there, decision, 0.1, slots=1).ads[-1].explored else 0.9
        )


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_where_nothing_can_be_tried_the_usual_ad_is_certain(bundle: Bundle, share: float) -> None:
    """Used up, or below the floor: on pages that are trials and on those that are not."""
    spent = dict.fromkeys(NEW, 10)
    others = [replace(ADS[key - 1], bid_micros=50) for key in NEW]
    low = bundle.with_live(bundle.live.apply(market.changes(2, others)))
    floor = decide(low, DECISIONS[0], 0.0).ads[-1].ecpm_micros
    for decision in DECISIONS:
        last = decide(bundle, decision, share, spent).ads[-1]
        if last.ad_id not in NEW:
            assert TOKENS.open(last.token, market.NOW).propensity == 1.0
        assert propensity(low, decision, share, floor_micros=floor) == 1.0


def test_where_something_can_be_tried_the_usual_ad_is_not_certain(bundle: Bundle) -> None:
    """Whether it is one of the first new ads that could be, or one of the last; under a floor."""
    one_left = dict.fromkeys(NEW - {191}, 10)
    for decision in DECISIONS:
        for tried, floor in (({}, 0), ({}, 100), (one_left, 0), (one_left, 100)):
            last = decide(bundle, decision, 0.01, tried, floor_micros=floor).ads[-1]
            if not last.explored:
                assert TOKENS.open(last.token, market.NOW).propensity == pytest.approx(0.96)
