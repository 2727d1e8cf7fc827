"""The catalog's ads as the arrays that a snapshot indexes."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from models.features import Encoder, stack
from models.index import AdSet
from models.schema import Schema
from models.types import Ad


def ad_set(ads: Iterable[Ad], schema: Schema) -> AdSet:
    """Encode every ad that is not retired, in ascending order of id."""
    encoder = Encoder(schema)
    kept = sorted((ad for ad in ads if ad.state != "retired"), key=lambda ad: ad.id)
    encoded = [encoder.encode_ad(encoder.ad_values(ad)) for ad in kept]
    return AdSet(
        ad_ids=np.array([ad.id for ad in kept], np.int64),
        features_version=np.array([ad.features_version for ad in kept], np.int64),
        log_bid=np.array([_log_bid(ad) for ad in kept], np.float32),
        features=stack(encoded, len(schema.ad)),
    )


def _log_bid(ad: Ad) -> float:
    """A CPM bid does not depend on pCTR, so it has no place in the index: 0."""
    return math.log(ad.bid_micros) if ad.bid_type == "cpc" else 0.0
