"""What retrieval is measured against: exact top-k by two FAISS scans of all whole vectors.

The best rows by the tangent bound are scored exactly; then every row whose bound reaches the k-th
best of them. It certifies its answers as retrieval does, and knows no limit per advertiser.
"""

from __future__ import annotations

import math

import numpy as np

from app.serving.bitmaps import among
from app.serving.pool import Wanted
from app.serving.retrieval import Searchable, UserSide, flat_slack, scored, tangent_at
from models.types import Bytes, Float32s, Int64s

_FIRST_FETCH = 48
_WIDE_SHARE = 0.35


def flat_scan(searchable: Searchable, eligible: Bytes, user: UserSide, count: int) -> Int64s:
    """The rows of the `count` best eligible ads, best first: int64 [m]."""
    index, wanted = searchable.index, Wanted(count)
    everyone = np.unpackbits(eligible, bitorder="little").view(np.bool_)
    by_bid = searchable.by_bid[everyone[searchable.by_bid]][:count]
    mask = eligible & searchable.bounded
    tangent = tangent_at(user, user.offset + index.reach.typical_main)
    query = np.append(tangent.latent, (tangent.slope, 1.0)).astype(np.float32)
    rows = _first(searchable, query, _FIRST_FETCH + 2 * count, mask)
    pool = scored(searchable, np.concatenate((rows, by_bid)), user)
    at = float(np.median(pool.scores[pool.best(wanted)])) if len(pool.rows) else 0.0
    tangent = tangent_at(user, at)
    query = np.append(tangent.latent, (tangent.slope, 1.0)).astype(np.float32)
    limit = pool.needed(wanted) - tangent.constant - flat_slack(tangent, index.reach)
    if math.isfinite(limit):
        more = np.setdiff1d(index.above(query, limit, mask), rows, assume_unique=True)
        pool = pool.joined(scored(searchable, more, user))
    return pool.rows[pool.best(wanted)]


def _first(searchable: Searchable, query: Float32s, count: int, mask: Bytes) -> Int64s:
    """The rows of the mask with the largest products, `count` of them or a few less."""
    index = searchable.index
    share = float(np.bitwise_count(mask).sum()) / len(index)
    if share < _WIDE_SHARE:
        return index.search(query, count, mask)[1]
    # FAISS scans twice as fast without a selector: fetch more, then drop what may not serve.
    _, rows = index.search(query, int(1.5 * count / share))
    return rows[among(mask, rows)]
