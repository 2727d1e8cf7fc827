"""A small schema, impressions drawn from a known click rule, and a handful of ads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.features import Encoder, Schema, parse_schema, stack
from models.index import AdSet
from models.types import Batch

SCHEMA = """
version = 1
[user.geo]
kind = "categorical"
[user.device]
kind = "categorical"
[user.interest]
kind = "multi"
[ad.creative]
kind = "categorical"
[ad.category]
kind = "multi"
[model]
overlap = 2
alone = 3
base_rate = 0.2
[gate]
window_clicks = 50
"""
CATEGORIES = ("shoes", "books", "music", "food")


@pytest.fixture
def schema() -> Schema:
    """Three user features, two ad features."""
    return parse_schema(SCHEMA)


@pytest.fixture
def draw(schema: Schema) -> Callable[..., Batch]:
    """draw(n, seed): impressions whose click rate depends on geo and on interest × category."""

    def draw(n: int, seed: int = 0, ads: int = 20) -> Batch:
        rng, encoder = np.random.default_rng(seed), Encoder(schema)
        users, shown, ids, labels = [], [], [], []
        for _ in range(n):
            geo, interest = f"g{rng.integers(5)}", CATEGORIES[rng.integers(4)]
            ad = int(rng.integers(ads)) + 1
            score = -1.5 + 0.5 * (geo == "g1") + 1.5 * (interest == CATEGORIES[ad % 4])
            labels.append(rng.random() < 1 / (1 + np.exp(-score)))
            device = f"d{rng.integers(2)}"
            users.append(
                encoder.encode_user({"geo": geo, "device": device, "interest": [interest]})
            )
            shown.append(encoder.encode_ad({"creative": ad, "category": [CATEGORIES[ad % 4]]}))
            ids.append(ad)
        return Batch(
            np.arange(n, dtype=np.int64) * 1000,
            np.array(ids, np.int64),
            np.array(labels, np.float32),
            stack(users, 3),
            stack(shown, 2),
        )

    return draw


@pytest.fixture
def ads(schema: Schema) -> AdSet:
    """Twenty ads with ids 1 to 20 and bids from 1 to 20 micros."""
    encoder, ids = Encoder(schema), np.arange(1, 21, dtype=np.int64)
    rows = [encoder.encode_ad({"creative": int(i), "category": [CATEGORIES[i % 4]]}) for i in ids]
    return AdSet(
        ad_ids=ids,
        features_version=np.ones(20, np.int64),
        log_bid=np.log(ids).astype(np.float32),
        features=stack(rows, 2),
    )
