"""A bundle is warmed off the request path, and being warm changes no answer."""

from __future__ import annotations

from uuid import UUID

from app.serving import loading, pipeline
from app.serving.pipeline import DecisionQuery
from app.serving.tokens import Tokens
from models.types import FeatureValue
from tests.unit import market

TOKENS = Tokens({1: bytes(32)}, 1, 3_600_000)
QUERIES = [DecisionQuery({"geo": geo, "hour": 9}, 5, per_advertiser=50) for geo in market.GEO]
ADS = market.random_ads(120, 4)


def test_a_warm_bundle_answers_as_a_cold_one() -> None:
    """What is taken over from the bundle before is only what the answers are made of sooner."""
    before = market.bundle_of(ADS, market.model(1))
    loading.warm(before, None, QUERIES, TOKENS, market.NOW)
    warm, cold = (market.bundle_of(ADS[:100], market.model(2)) for _ in range(2))
    loading.warm(warm, before, [], TOKENS, market.NOW)
    for query in QUERIES:
        decisions = [
            pipeline.decide(bundle, query, market.NOW, UUID(int=1), TOKENS)
            for bundle in (warm, cold)
        ]
        ads = [[(ad.ad_id, ad.pctr, ad.price_micros) for ad in one.ads] for one in decisions]
        assert ads[0] == ads[1]
        assert ads[0]


def test_a_warm_bundle_knows_the_values_that_the_one_before_was_asked_for() -> None:
    """A request after a swap searches for no value that one before it has named."""
    before, after = (market.bundle_of(ADS, market.model(seed)) for seed in (1, 2))
    asked: dict[str, FeatureValue] = {"geo": "uk", "hour": 17}
    before.users.of(asked)
    loading.warm(after, before, [], TOKENS, market.NOW)
    hashes, _ = market.ENCODER.user_hashes(asked)
    assert after.users._rows.keys() >= set(hashes)
