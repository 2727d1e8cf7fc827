"""A score and its parts."""

from __future__ import annotations

import numpy as np
import pytest

from models.contributions import contributions
from models.features import stack
from models.types import FeatureValue
from tests.unit import market

USED = market.model(3)
NAMES = (
    [feature.full_name for feature in market.SCHEMA.user],
    [feature.full_name for feature in market.SCHEMA.ad],
)


@pytest.mark.parametrize("user", [market.USER, {}, {"geo": "never seen", "hour": 3}])
def test_the_parts_sum_to_the_score(user: dict[str, FeatureValue]) -> None:
    """Bias, main effects and interactions add up, for known and unknown users alike."""
    for key in (1, 17, 350):
        ad = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(key)))
        latent = USED.ad_vectors(stack([ad], len(market.SCHEMA.ad)))[0][0]
        parts = contributions(USED, NAMES, market.ENCODER.encode_user(user), ad, latent)
        [score] = market.scores([market.ad(key)], USED, user)
        assert sum(part.value for part in parts) == pytest.approx(score, abs=1e-5)


def test_each_pair_and_each_feature_has_its_part() -> None:
    """One bias, a main effect a feature, an interaction a pair and one a user feature alone."""
    ad = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(1)))
    latent = USED.ad_vectors(stack([ad], len(market.SCHEMA.ad)))[0][0]
    parts = contributions(USED, NAMES, market.ENCODER.encode_user(market.USER), ad, latent)
    assert [part.features for part in parts if not part.interacts] == [
        (),
        *((name,) for name in (*NAMES[0], *NAMES[1])),
    ]
    assert [part.features for part in parts if part.interacts] == [
        ("user.geo", "user.hour"),
        ("user.geo", "user.placement"),
        ("user.hour", "user.placement"),
        *((name,) for name in NAMES[0]),
    ]


def test_a_pair_is_the_product_of_its_blocks() -> None:
    """A pair's part is what changes when either feature's vector is made zero."""
    ad = market.ENCODER.encode_ad(market.ENCODER.ad_values(market.ad(5)))
    latent = USED.ad_vectors(stack([ad], len(market.SCHEMA.ad)))[0][0]
    encoded = market.ENCODER.encode_user(market.USER)
    parts = {
        part.features: part.value
        for part in contributions(USED, NAMES, encoded, ad, latent)
        if part.interacts
    }
    without_hour = market.ENCODER.encode_user({"geo": market.USER["geo"], "hour": "unknown"})
    gone = {
        part.features: part.value
        for part in contributions(USED, NAMES, without_hour, ad, latent)
        if part.interacts
    }
    assert gone[("user.geo", "user.hour")] == 0.0 != parts[("user.geo", "user.hour")]
    assert np.isclose(gone[("user.geo",)], parts[("user.geo",)])
