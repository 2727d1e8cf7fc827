"""Queries to answers: scores and decisions over one bundle."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from app.serving import pipeline, scoring
from app.serving.bundle import Bundle
from app.serving.pipeline import DecisionQuery
from app.serving.scoring import ScoredAd, ScoreQuery
from app.serving.tokens import Tokens
from models.errors import FeatureUnknown, FeatureValueInvalid
from models.features import pack, unpack
from models.types import Campaign, CatalogChanges, Clause, Placement, Targeting
from tests.unit import market

TOKENS = Tokens({1: bytes(32)}, 1, 3_600_000)
DECISION = UUID(int=2**127 + 1)
ADS = [market.ad(key) for key in range(1, 300)]
USED = market.model(1)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """All of `ADS`, indexed."""
    return market.bundle_of(ADS, USED)


def decide(bundle: Bundle, query: DecisionQuery) -> pipeline.Decision:
    return pipeline.decide(bundle, query, market.NOW, DECISION, TOKENS)


def test_scores_are_the_published_models(bundle: Bundle) -> None:
    """pctr is σ(s) in float64, eCPM 1000 · pctr · bid in whole micros, in the order asked for."""
    asked = [ADS[40], ADS[3], ADS[200]]
    scored = scoring.score(bundle, ScoreQuery(market.USER, [ad.id for ad in asked]), market.NOW)
    rates = 1 / (1 + np.exp(-market.scores(asked, USED, market.USER)))
    assert [ad.ad_id for ad in scored] == [ad.id for ad in asked]
    np.testing.assert_allclose([ad.pctr for ad in scored], rates, rtol=1e-12)
    for ad, of in zip(scored, asked, strict=True):
        assert ad.bid_micros == of.bid_micros
        assert ad.ecpm_micros == int(1000 * (ad.pctr or 0) * of.bid_micros)
        assert (ad.known, ad.eligible, ad.reason) == (True, True, None)


def test_an_unknown_ad_is_a_line_of_its_own(bundle: Bundle) -> None:
    """An ad that the catalog lacks has no figures, wherever it stands in the list."""
    unknown = ScoredAd(5000, False, None, None, None, False, "unknown_ad")
    scored = scoring.score(bundle, ScoreQuery(market.USER, [5000, 1, 5000]), market.NOW)
    assert (scored[0], scored[1].known, scored[2]) == (unknown, True, unknown)
    assert scoring.score(bundle, ScoreQuery(market.USER, [5000]), market.NOW) == [unknown]
    assert scoring.score(bundle, ScoreQuery(market.USER, []), market.NOW) == []


def test_many_users_get_the_scores_of_one(bundle: Bundle) -> None:
    """A batch gives every pair the figures of a single score, to the bit, shared ads or not."""
    shared = [3, 5000, 7, 1]
    queries = [ScoreQuery(market.USER, shared), ScoreQuery({"geo": "uk"}, shared)]
    queries += [ScoreQuery({}, [5000]), ScoreQuery(market.USER, [9])]
    found = scoring.score_many(bundle, queries, market.NOW)
    for query, many in zip(queries, found, strict=True):
        single = scoring.score(bundle, query, market.NOW)
        assert many.pctr == [ad.pctr for ad in single]
        assert many.ecpm_micros == [ad.ecpm_micros for ad in single]
        assert many.reasons == [ad.reason for ad in single]


def test_a_fault_in_a_batch_names_the_user(bundle: Bundle) -> None:
    """Which of many users has the faulty feature is said in its field."""
    queries = [ScoreQuery(market.USER, [1]), ScoreQuery({"shoe": "44"}, [1])]
    with pytest.raises(FeatureUnknown) as raised:
        scoring.score_many(bundle, queries, market.NOW)
    assert raised.value.field == "users[1].shoe"


def test_each_ineligible_ad_says_why(bundle: Bundle) -> None:
    """Every cause is reported by its own word, and the ad is scored all the same."""
    only_uk = Targeting(all=(Clause("user.geo", ("uk",)),))
    changed = {
        "paused": replace(ADS[0], state="paused"),
        "retired": replace(ADS[1], state="retired"),
        "not_started": replace(ADS[2], flight_start_ms=market.NOW + 1),
        "ended": replace(ADS[3], flight_end_ms=market.NOW),
        "targeting": replace(ADS[4], targeting=only_uk),
        "campaign_paused": replace(ADS[5], campaign_id=99),
    }
    campaign = Campaign(99, 1, "paused")
    live = bundle.live.apply(CatalogChanges(2, (), (campaign,), tuple(changed.values())))
    query = ScoreQuery(market.USER, [ad.id for ad in changed.values()])
    scored = scoring.score(bundle.with_live(live), query, market.NOW)
    assert [ad.reason for ad in scored] == list(changed)
    assert not any(ad.eligible for ad in scored)
    assert all(ad.pctr for ad in scored)


def test_a_decision_is_the_auction_over_all_ads(bundle: Bundle) -> None:
    """The slots hold the ads of the highest eCPM; each pays no more than its bid."""
    decision = decide(bundle, DecisionQuery(market.USER, 5))
    values = market.ecpm(ADS, USED, {**market.USER, "placement": ""})
    best = sorted(values, key=lambda key: (-values[key], key))[:5]
    bids = {ad.id: ad.bid_micros for ad in ADS}
    assert [ad.ad_id for ad in decision.ads] == best
    assert [ad.slot for ad in decision.ads] == [0, 1, 2, 3, 4]
    assert all(1 <= ad.price_micros <= bids[ad.ad_id] for ad in decision.ads)
    assert (decision.certified, decision.catalog_version) == (True, 1)
    assert (decision.decision_id, decision.snapshot_id) == (DECISION, market.SNAPSHOT)


def test_decided_and_scored_rates_are_the_same(bundle: Bundle) -> None:
    """`/score` and a decision give one ad the same pctr and eCPM, to the last bit."""
    user = {**market.USER, "placement": ""}
    decided = decide(bundle, DecisionQuery(user, 7)).ads
    scored = scoring.score(bundle, ScoreQuery(user, [ad.ad_id for ad in decided]), market.NOW)
    assert [(ad.pctr, ad.ecpm_micros) for ad in scored] == [
        (ad.pctr, ad.ecpm_micros) for ad in decided
    ]


def test_excluded_ads_do_not_win_and_the_next_ones_do(bundle: Bundle) -> None:
    """Without the winners the runners-up take the slots."""
    first = [ad.ad_id for ad in decide(bundle, DecisionQuery(market.USER, 6)).ads]
    query = DecisionQuery(market.USER, 3, exclude=[*first[:3], 5000])
    assert [ad.ad_id for ad in decide(bundle, query).ads] == first[3:]


def test_a_floor_prices_and_keeps_out(bundle: Bundle) -> None:
    """The last ad above the floor pays it, the first below it gets nothing."""
    ads = decide(bundle, DecisionQuery(market.USER, 4)).ads
    floor = ads[2].ecpm_micros
    limited = decide(bundle, DecisionQuery(market.USER, 4, floor_micros=floor)).ads
    assert [ad.ad_id for ad in limited] == [ad.ad_id for ad in ads[:3]]
    paid = 1000 * limited[2].pctr * limited[2].price_micros
    assert floor <= paid < floor + 1000 * limited[2].pctr


def test_a_token_carries_what_was_decided_with(bundle: Bundle) -> None:
    """The token opens to the decision, and its features to those of this user and this ad."""
    query = DecisionQuery(market.USER, 2, "home")
    for ad in decide(bundle, query).ads:
        content = TOKENS.open(ad.token, market.NOW)
        user = market.ENCODER.encode_user({**market.USER, "placement": "home"})
        encoded = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(ad.ad_id)))
        assert content.features == pack(user, encoded)
        assert len(unpack(market.SCHEMA, [content.features])[0]) == 1
        assert (content.decision_id, content.snapshot_id) == (DECISION, market.SNAPSHOT)
        assert (content.ad_id, content.slot) == (ad.ad_id, ad.slot)
        assert (content.decided_ms, content.catalog_version) == (market.NOW, 1)
        assert (content.price_micros, content.propensity) == (ad.price_micros, 1.0)
        assert (content.placement, content.explored) == ("home", False)


def test_the_placement_is_a_feature_unless_the_caller_gives_one(bundle: Bundle) -> None:
    """A declared `user.placement` is filled from the query; a given one is kept."""
    filled = decide(bundle, DecisionQuery(market.USER, 1, "home")).ads[0].token
    given = decide(bundle, DecisionQuery({**market.USER, "placement": "side"}, 1))
    for token, placement in ((filled, "home"), (given.ads[0].token, "side")):
        ids = unpack(market.SCHEMA, [TOKENS.open(token, market.NOW).features])[0].ids
        expected = market.ENCODER.encode_user({**market.USER, "placement": placement}).ids
        np.testing.assert_array_equal(ids, expected)


def test_two_placements_that_differ_are_refused(bundle: Bundle) -> None:
    """The user's placement may repeat the decision's or be missing, but not contradict it."""
    for same in ("home", None, ""):
        decide(bundle, DecisionQuery({**market.USER, "placement": same}, 1, "home"))
    with pytest.raises(FeatureValueInvalid, match="placement, home"):
        decide(bundle, DecisionQuery({**market.USER, "placement": "side"}, 1, "home"))


def test_targeting_sees_the_placement(bundle: Bundle) -> None:
    """An ad that targets a placement serves there and nowhere else."""
    only_home = Targeting(all=(Clause("user.placement", ("home",)),))
    dear = replace(ADS[0], targeting=only_home, bid_micros=10**11)
    there = bundle.with_live(bundle.live.apply(market.changes(2, [dear])))
    winners = {
        placement: decide(there, DecisionQuery(market.USER, 1, placement)).ads[0].ad_id
        for placement in ("home", "side")
    }
    assert winners["home"] == ADS[0].id != winners["side"]


def test_an_unknown_feature_is_named(bundle: Bundle) -> None:
    """A feature name that the schema lacks is an error of the caller."""
    for call in (
        lambda: decide(bundle, DecisionQuery({"gender": "x"}, 1)),
        lambda: scoring.score(bundle, ScoreQuery({"gender": "x"}, [1]), market.NOW),
    ):
        with pytest.raises(FeatureUnknown, match=r"user\.gender"):
            call()


def test_too_long_a_placement_is_refused(bundle: Bundle) -> None:
    """The token has room for 32 characters."""
    with pytest.raises(FeatureValueInvalid, match="placement"):
        decide(bundle, DecisionQuery(market.USER, 1, "x" * 33))


def test_a_paused_ad_is_not_decided(bundle: Bundle) -> None:
    """The winner, once paused, is gone from the very next decision."""
    winner = decide(bundle, DecisionQuery(market.USER, 1)).ads[0].ad_id
    paused = market.changes(2, [replace(ADS[winner - 1], state="paused")])
    after = decide(bundle.with_live(bundle.live.apply(paused)), DecisionQuery(market.USER, 50))
    assert winner not in [ad.ad_id for ad in after.ads]


def test_an_empty_catalog_decides_nothing() -> None:
    """No ads: no slots filled, and that is certified."""
    decision = decide(market.bundle_of([], USED), DecisionQuery(market.USER, 3))
    assert (decision.ads, decision.certified) == ([], True)


def test_a_creative_comes_back_as_it_was_stored(bundle: Bundle) -> None:
    """The answer carries the ad's own creative."""
    ad = decide(bundle, DecisionQuery(market.USER, 1)).ads[0]
    assert ad.creative == {"title": f"ad {ad.ad_id}"}


def test_deciding_changes_nothing(bundle: Bundle) -> None:
    """The same query gives the same ads at the same prices, however often."""
    query = DecisionQuery(market.USER, 5)
    answers = [
        [(ad.ad_id, ad.pctr, ad.price_micros) for ad in decide(bundle, query).ads] for _ in range(3)
    ]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(("name", "placement"), [("home", "home"), ("x" * 33, ""), ("no name", "")])
def test_a_placement_given_as_a_feature_is_the_placement(
    bundle: Bundle, name: str, placement: str
) -> None:
    """Floor, house ads and tokens are those of `placement`; what can be no name is a feature."""
    home = Placement("home", 2**52, (7,))
    there = bundle.with_live(bundle.live.apply(CatalogChanges(2, placements=(home,))))
    decided = decide(there, DecisionQuery({**market.USER, "placement": name}, 1))
    assert [ad.house for ad in decided.ads] == [bool(placement)]
    assert TOKENS.open(decided.ads[0].token, market.NOW).placement == placement
    if placement:
        asked = decide(there, DecisionQuery(market.USER, 1, "home"))
        assert [ad.ad_id for ad in asked.ads] == [ad.ad_id for ad in decided.ads] == [7]
