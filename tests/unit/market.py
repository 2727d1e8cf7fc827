"""A small random market for the tests of serving: schema, model, catalog, index."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np

from app.serving.bundle import Bundle
from app.serving.live import LiveCatalog
from models.features import Encoder, Schema, parse_schema, stack
from models.index import AdIndex
from models.offset import Model
from models.types import (
    Ad,
    Advertiser,
    Campaign,
    CatalogChanges,
    Clause,
    FeatureValue,
    Float64s,
    Targeting,
)

SCHEMA: Schema = parse_schema("""
version = 1
[user.geo]
kind = "categorical"
[user.hour]
kind = "categorical"
[user.placement]
kind = "categorical"
[ad.creative]
kind = "categorical"
[ad.campaign]
kind = "categorical"
[ad.category]
kind = "multi"
""")
ENCODER = Encoder(SCHEMA)
SNAPSHOT = UUID(int=7)
NOW = 1_790_000_000_000
GEO, CATEGORIES = ("us", "ca", "uk"), ("shoes", "cars", "food", "trips")
User = dict[str, FeatureValue]
USER: User = {"geo": "us", "hour": 9}


def model(seed: int, scale: float = 0.5, bias: float = -2.0) -> Model:
    """A model with random vectors for every value that the market uses."""
    random = np.random.default_rng(seed)
    users = [{"geo": geo, "hour": hour} for geo in GEO for hour in range(24)]
    ads = [ENCODER.ad_values(ad(key)) for key in range(1, 400)]
    user_keys = np.unique(np.concatenate([ENCODER.encode_user(user).ids for user in users]))
    ad_keys = np.unique(np.concatenate([ENCODER.encode_ad(values).ids for values in ads]))
    width, dimensions = SCHEMA.user_width, SCHEMA.dimensions

    def drawn(*shape: int) -> Any:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    return Model(
        user_keys=user_keys,
        user_latent=1 + drawn(len(user_keys), width),
        user_main=drawn(len(user_keys)),
        user_feature=np.zeros(len(user_keys), np.uint8),
        ad_keys=ad_keys,
        ad_latent=drawn(len(ad_keys), dimensions),
        ad_main=drawn(len(ad_keys)),
        bias=bias,
        user_features=len(SCHEMA.user),
        overlap=SCHEMA.model.overlap,
        alone=SCHEMA.model.alone,
    )


def ad(key: int, **changes: Any) -> Ad:
    """An ad whose features follow from its id."""
    usual = Ad(
        id=key,
        campaign_id=1 + key % 17,
        advertiser_id=1 + key % 5,
        bid_micros=100_000 + 1000 * (key % 13),
        features={"category": [CATEGORIES[key % 4], CATEGORIES[key % 3]]},
        creative={"title": f"ad {key}"},
    )
    return replace(usual, **changes)


def random_ads(count: int, seed: int) -> list[Ad]:
    """Ads with log-normal bids, some CPM, some targeted, some paused."""
    random = np.random.default_rng(seed)
    return [random_ad(int(key), random) for key in random.permutation(399)[:count] + 1]


def random_ad(key: int, random: np.random.Generator) -> Ad:
    """One ad, everything about it random."""
    bid_type = "cpm" if random.random() < 0.2 else "cpc"
    centre = 10.5 if bid_type == "cpm" else 12.0
    target = Targeting(all=(Clause("user.geo", (str(random.choice(GEO)), "us")),))
    return ad(
        key,
        bid_type=bid_type,
        bid_micros=int(np.exp(centre + 1.2 * random.standard_normal())) + 1,
        state=str(random.choice(["active", "active", "active", "paused", "retired"])),
        targeting=target if random.random() < 0.3 else Targeting(),
        features={"category": [str(random.choice(CATEGORIES))]},
    )


def index_of(ads: list[Ad], used: Model) -> AdIndex:
    """The index that the jobs process would build of these ads."""
    ads = sorted(ads, key=lambda item: item.id)
    encoded = [ENCODER.encode_ad(ENCODER.ad_values(item)) for item in ads]
    latent, main = used.ad_vectors(stack(encoded, len(SCHEMA.ad)))
    log_bid = [np.log(item.bid_micros) if item.bid_type == "cpc" else 0.0 for item in ads]
    return AdIndex.build(
        np.array([item.id for item in ads], np.int64),
        np.array([item.features_version for item in ads], np.int64),
        np.column_stack((latent, main, np.array(log_bid, np.float32))),
    )


def changes(version: int, ads: list[Ad], **others: Any) -> CatalogChanges:
    """Catalog changes of some ads."""
    return CatalogChanges(version=version, ads=tuple(ads), **others)


def bundle_of(ads: list[Ad], used: Model, **others: Any) -> Bundle:
    """A bundle over an index of exactly these ads."""
    index = index_of(ads, used)
    live = LiveCatalog.load(changes(1, ads, **others), index, used, ENCODER)
    return Bundle(SNAPSHOT, SCHEMA, ENCODER, used, index, live)


def scores(ads: list[Ad], used: Model, user: User) -> Float64s:
    """s of each ad by the plainest float64 arithmetic on the model's vectors."""
    latent, main = used.user_vector(ENCODER.encode_user(user))
    encoded = [ENCODER.encode_ad(ENCODER.ad_values(item)) for item in ads]
    vectors, ad_main = used.ad_vectors(stack(encoded, len(SCHEMA.ad)))
    products = vectors.astype(np.float64) @ latent.astype(np.float64)
    result: Float64s = products + ad_main.astype(np.float64) + main + used.bias
    return result


def ecpm(ads: list[Ad], used: Model, user: User) -> dict[int, float]:
    """eCPM by ad id, brute force."""
    rates = 1 / (1 + np.exp(-scores(ads, used, user))) if ads else []
    return {
        item.id: 1000.0 * rate * item.bid_micros if item.bid_type == "cpc" else item.bid_micros
        for item, rate in zip(ads, rates, strict=True)
    }


def serves(item: Ad, user: User) -> bool:
    """Whether the ad's state and targeting (all, values only) let it serve."""
    met = all(
        str(user.get(clause.feature[5:])) in (clause.values or ()) for clause in item.targeting.all
    )
    return item.state == "active" and met


def advertisers() -> tuple[Advertiser, ...]:
    """The market's advertisers, all active."""
    return tuple(Advertiser(key) for key in range(1, 6))


def campaigns() -> tuple[Campaign, ...]:
    """The market's campaigns, all active."""
    return tuple(Campaign(key, 1) for key in range(1, 18))
