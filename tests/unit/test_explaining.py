"""Explanations agree with the decisions they are about."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from app.serving import pipeline
from app.serving.bundle import Bundle
from app.serving.explaining import ExplainedAd, explain
from app.serving.pipeline import DecisionQuery
from app.serving.tokens import Tokens
from app.serving.trial import Exploration
from models.types import CatalogChanges, Clause, Placement, Targeting
from tests.unit import market
from tests.unit.test_trial import ADS, NEW, bundle_of

TOKENS = Tokens({1: bytes(32)}, 1, 3_600_000)
DECISION = UUID(int=2**127 + 1)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Ads of an advertiser each, some of them new."""
    return bundle_of(ADS)


def explained(
    bundle: Bundle, query: DecisionQuery, *ad_ids: int, share: float = 0.0
) -> dict[int, ExplainedAd]:
    exploration = Exploration(share, 10, {})
    found = explain(bundle, query, ad_ids, market.NOW, DECISION, exploration)
    return {ad.ad_id: ad for ad in found.ads}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_page_is_that_of_the_decision(bundle: Bundle, share: float) -> None:
    """Slots, prices, rates and trials are what the same decision answers."""
    query = DecisionQuery(market.USER, 4, per_advertiser=1)
    exploration = Exploration(share, 10, {})
    decided = pipeline.decide(bundle, query, market.NOW, DECISION, TOKENS, exploration)
    found = explain(bundle, query, [], market.NOW, DECISION, exploration)
    assert [
        (ad.slot, ad.ad_id, ad.price_micros, ad.pctr, ad.ecpm_micros, ad.explored)
        for ad in found.ads
    ] == [
        (ad.slot, ad.ad_id, ad.price_micros, ad.pctr, ad.ecpm_micros, ad.explored)
        for ad in decided.ads
    ]
    assert found.is_trial == bool(share)
    assert found.competing == len(ADS)
    assert all(ad.reason is None for ad in found.ads)


def test_the_parts_of_a_score_sum_to_it(bundle: Bundle) -> None:
    """Also for an ad that no index holds."""
    live = bundle.live.apply(market.changes(2, [market.ad(500)]))
    found = explained(bundle.with_live(live), DecisionQuery(market.USER, 2), 3, 50, 500)
    for ad in found.values():
        assert sum(part.logits for part in ad.score_parts) == pytest.approx(ad.score, abs=1e-9)
        assert abs(ad.score_parts[-1].logits) < 1e-4
        assert ad.score_deviation
    assert (found[500].is_new, found[50].is_new) == (True, False)


def test_each_loser_has_its_reason(bundle: Bundle) -> None:
    """State, targeting, floor, house ads, the advertiser's limit and rivals are told apart."""
    usual = explained(bundle, DecisionQuery(market.USER, 1, per_advertiser=1))
    [winner] = usual
    loser = next(key for key in range(2, 100) if key != winner)
    sibling = next(key for key in range(100, 199) if key != winner)
    only_uk = Targeting(all=(Clause("user.geo", ("uk",)),))
    changed = [
        replace(ADS[150], state="paused"),
        replace(ADS[151], targeting=only_uk),
        replace(ADS[sibling - 1], advertiser_id=ADS[winner - 1].advertiser_id),
        replace(ADS[160], bid_micros=1),
    ]
    house = Placement("home", 0, (171,))
    live = bundle.live.apply(CatalogChanges(2, (), (), tuple(changed), (house,)))
    query = DecisionQuery(market.USER, 1, "home", exclude=[172], floor_micros=5_000)
    query = DecisionQuery(query.user, 1, "home", [172], 5_000, 1)
    asked = (151, 152, sibling, 161, 171, 172, loser, 9999)
    found = explained(bundle.with_live(live), query, *asked)
    reasons = [found[ad_id].reason for ad_id in asked]
    expected = ["paused", "targeting", "advertiser_limit", "below_floor", "house", "excluded"]
    assert reasons == [*expected, "outbid", "unknown_ad"]
    assert found[152].meets_targeting is False
    assert found[161].needed_ecpm_micros == 5_000
    needed = found[loser].needed_ecpm_micros
    top = next(ad for ad in found.values() if ad.slot == 0)
    assert needed == top.ecpm_micros
    assert (top.rank, found[171].rank) == (1, None)


def test_who_gave_way_to_a_trial_is_told(bundle: Bundle) -> None:
    """The ad that would have had the slot of a new ad is not called outbid."""
    query = DecisionQuery(market.USER, 3, per_advertiser=1)
    last = list(explained(bundle, query))[-1]
    found = explained(bundle, query, last, share=1.0)
    tried = [ad for ad in found.values() if ad.explored]
    assert [ad.ad_id in NEW for ad in tried] == [True]
    assert found[last].reason == "explored"


def test_a_trial_of_its_advertiser_does_not_bar_an_ad(bundle: Bundle) -> None:
    """The tried ad took part in no auction: a cheaper ad of its advertiser is outbid."""
    query = DecisionQuery(market.USER, 3, per_advertiser=1)
    page = explained(bundle, query, share=1.0)
    [tried] = [ad_id for ad_id, ad in page.items() if ad.explored]
    cheap = replace(ADS[149], advertiser_id=ADS[tried - 1].advertiser_id, bid_micros=500)
    there = bundle.with_live(bundle.live.apply(market.changes(2, [cheap])))
    found = explained(there, query, 150, share=1.0)
    assert found[tried].explored
    assert found[150].reason == "outbid"
    assert found[150].needed_ecpm_micros == found[list(page)[1]].ecpm_micros


def test_a_barred_ad_did_not_give_way_to_a_trial(bundle: Bundle) -> None:
    """An ad beyond its advertiser's limit says so, though it is dearer than the one that did."""
    query = DecisionQuery(market.USER, 3, per_advertiser=1)
    first, second, *_ = explained(bundle, query)
    barred = replace(ADS[second - 1], advertiser_id=ADS[first - 1].advertiser_id)
    there = bundle.with_live(bundle.live.apply(market.changes(2, [barred])))
    last = list(explained(there, query))[-1]
    found = explained(there, query, second, last, share=1.0)
    assert found[second].reason == "advertiser_limit"
    assert found[second].needed_ecpm_micros == found[first].ecpm_micros
    assert found[last].reason == "explored"


def test_house_ads_are_beside_the_limit() -> None:
    """A house ad is shown though its advertiser has its share, and is no part of that share."""
    some = [market.ad(key, advertiser_id=1) for key in (2, 3, 4)]
    few = bundle_of(some)
    house = Placement("home", 0, (4,))
    there = few.with_live(few.live.apply(CatalogChanges(2, (), (), (), (house,))))
    query = DecisionQuery(market.USER, 3, "home", per_advertiser=1)
    winner, shown = explained(there, query).values()
    assert (shown.ad_id, shown.house, winner.house) == (4, True, False)
    loser = explained(there, query, 5 - winner.ad_id)[5 - winner.ad_id]
    assert loser.reason == "advertiser_limit"
    assert loser.needed_ecpm_micros == winner.ecpm_micros


def test_no_bid_wins_the_only_slot_of_a_trial(bundle: Bundle) -> None:
    """With one slot, and that for a new ad, a loser needs nothing that it could bid."""
    query = DecisionQuery(market.USER, 1, per_advertiser=1)
    usual = next(iter(explained(bundle, query)))
    found = explained(bundle, query, usual, 150, share=1.0)
    assert (found[usual].reason, found[150].reason) == ("explored", "outbid")
    assert found[150].needed_ecpm_micros is None


def test_a_page_that_is_not_full_is_no_trial() -> None:
    """Nothing is tried where a slot stays empty, so it is not called a trial."""
    few = bundle_of([market.ad(key, advertiser_id=1) for key in (1, 2)])
    query = DecisionQuery(market.USER, 3, per_advertiser=1)
    found = explain(few, query, [], market.NOW, DECISION, Exploration(1.0, 10, {}))
    assert not found.is_trial


@pytest.mark.parametrize(("name", "floor"), [("home", 777), ("x" * 33, 0), ("no name", 0)])
def test_the_placement_may_come_as_a_feature(bundle: Bundle, name: str, floor: int) -> None:
    """A placement's name in `user.placement` has its floor; any other value is a feature only."""
    home = Placement("home", 777)
    there = bundle.with_live(bundle.live.apply(CatalogChanges(2, placements=(home,))))
    query = DecisionQuery({**market.USER, "placement": name}, 2)
    assert explain(there, query, [], market.NOW, DECISION).floor_micros == floor
