"""Exact top-k by eCPM from an inner-product index, with a certificate.

For a CPC ad `log(eCPM/1000) = log bid + log σ(s)`, and log σ is concave, so for any s₀

    log σ(s) ≤ log σ(s₀) + (1 − σ(s₀)) (s − s₀),

a bound that is an inner product of `[(1 − p₀) ν_u, 1 − p₀, 1]` with the index's rows
`[ν_a, w_a, log bid]`. The best rows by the bound are rescored exactly with live bids. Once the k-th
best exact value reaches the bound of everything not fetched, the answer equals brute force over
the eligible ads. Where it does not, a second pass fetches *every* row whose bound reaches that
value, under the tangent at the scores just found, so two scans always end certified.

A lowered bid keeps the bound true. Ads that the index cannot bound (new, changed, a raised bid) are
always scored; CPM ads need no prediction and come from a list sorted by bid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from app.serving.auction import expected_cpm, ranked
from app.serving.eligibility import among
from models.index import AdIndex, Reach
from models.offset import sigmoid
from models.types import Bools, Bytes, Float32s, Float64s, Int64s

_SCORE_ALL = 128
"""At most this many survivors are scored without asking the index."""
_FIRST_FETCH = 48
_WIDE_ROWS, _WIDE_SHARE = 10_000, 0.35
"""From this many indexed rows and this share of eligible ones on, search without a selector."""
_ROWS_AT_ONCE = 4096
_UNIT = 2.0**-24
"""Relative rounding error of one float32 operation."""


@dataclass(frozen=True, slots=True)
class UserSide:
    """The user's half of the score: ν_u, float32 [D], and `offset` = b + Σ w_u."""

    latent: Float32s
    offset: float


@dataclass(frozen=True, slots=True)
class Searchable:
    """How retrieval reaches n ads; the first rows are the index's own.

    `composed_at`: int64 [n], the row of `composed` (float32 [c, D+2]) that holds the ad's vector,
    −1 where the index holds it; `always`: int64, rows of CPC ads that the index cannot bound;
    `bounded`: packed bitmap over the index, the CPC ads that it can; `by_bid`: int64, rows of CPM
    ads by falling bid, then by id; `ad_ids`, `bid_micros`, `per_click`: live values, [n] each;
    `promise`: the range that s is held to. The certificate has it that the index's own ads are
    inside; an ad that came or changed after it was built need not be.
    """

    index: AdIndex
    composed_at: Int64s
    composed: Float32s
    always: Int64s
    bounded: Bytes
    by_bid: Int64s
    ad_ids: Int64s
    bid_micros: Int64s
    per_click: Bools
    promise: tuple[float, float] = (-math.inf, math.inf)

    def scores(self, rows: Int64s, user: UserSide) -> Float64s:
        """s of some rows in float64: float64 [m]. Equal vectors give equal scores to the bit."""
        query = np.append(user.latent.astype(np.float64), 1.0)
        if len(rows) <= _ROWS_AT_ONCE:
            products = self._products(rows, query)
        else:
            starts = range(0, len(rows), _ROWS_AT_ONCE)
            parts = [self._products(rows[at : at + _ROWS_AT_ONCE], query) for at in starts]
            products = np.concatenate(parts)
        return self._held(products + user.offset, rows)

    def _held(self, scores: Float64s, rows: Int64s) -> Float64s:
        """The scores, those of composed ads inside the promise."""
        if not len(self.composed):
            return scores
        inside: Float64s = np.minimum(np.maximum(scores, self.promise[0]), self.promise[1])
        return np.where(self.composed_at[rows] >= 0, inside, scores)

    def _products(self, rows: Int64s, query: Float64s) -> Float64s:
        vectors = self._vectors(rows)[:, :-1].astype(np.float64)
        # Not a BLAS product: its result for a row depends on the row's place in the matrix.
        products: Float64s = np.einsum("ij,j->i", vectors, query)
        return products

    def _vectors(self, rows: Int64s) -> Float32s:
        if not len(self.composed):
            return self.index.take(rows)
        at = self.composed_at[rows]
        if (at >= 0).all():
            return self.composed[at]
        vectors = self.index.take(np.where(at < 0, rows, 0))
        vectors[at >= 0] = self.composed[at[at >= 0]]
        return vectors


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The best ads by eCPM, best first, ties by id: rows int64 [m]; pctr float64 [m].

    `certified`: no other eligible ad has a higher eCPM than the last of these.
    """

    rows: Int64s
    pctr: Float64s
    certified: bool


@dataclass(frozen=True, slots=True)
class _Pool:
    """Rows scored exactly."""

    rows: Int64s
    scores: Float64s
    pctr: Float64s
    ecpm: Float64s

    def best(self, searchable: Searchable, count: int) -> Int64s:
        """Indices of the `count` best, best first."""
        return ranked(self.ecpm, searchable.ad_ids[self.rows])[:count]

    def needed(self, count: int, floor_micros: int) -> float:
        """log(eCPM/1000) that an ad must reach to be among the `count` best and at the floor."""
        least = float(floor_micros)
        if len(self.ecpm) >= count:
            at = len(self.ecpm) - count
            least = max(least, float(np.partition(self.ecpm, at)[at]))
        return math.log(least / 1000.0) if least > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class _Fetched:
    """Rows of a search, and what no product of the rows that it left out is above."""

    rows: Int64s
    rest: float


@dataclass(frozen=True, slots=True)
class Tangent:
    """The bound at some s₀: `constant` + `query` · row ≥ log(eCPM/1000), rounding included."""

    query: Float32s
    constant: float


def retrieve(
    searchable: Searchable, eligible: Bytes, user: UserSide, count: int, floor_micros: int = 0
) -> Retrieved:
    """The `count` (≥ 1) best eligible ads, as far as they reach `floor_micros` of eCPM.

    `eligible`: packed bitmap over all rows. Ads below the floor may be among those returned.
    """
    others = _unbounded(searchable, eligible, count)
    mask = eligible[: len(searchable.bounded)] & searchable.bounded
    left = int(np.bitwise_count(mask).sum())
    if left <= max(_SCORE_ALL, count):
        pool = _scored(searchable, np.concatenate((_set_bits(mask), others)), user)
        return _answer(searchable, pool, count, True)
    return _search(searchable, mask, others, user, count, floor_micros)


def _search(
    searchable: Searchable,
    mask: Bytes,
    others: Int64s,
    user: UserSide,
    count: int,
    floor_micros: int,
) -> Retrieved:
    index = searchable.index
    tangent = tangent_at(user, user.offset + index.reach.typical_main, index.reach)
    first = _first(searchable, mask, tangent.query, count)
    rows = first.rows
    pool = _scored(searchable, np.concatenate((rows, others)), user)
    needed = pool.needed(count, floor_micros)
    if needed > tangent.constant + first.rest:
        return _answer(searchable, pool, count, True)
    typical = float(np.median(pool.scores[pool.best(searchable, count)]))
    tangent = tangent_at(user, typical, index.reach)
    limit = needed - tangent.constant
    more = np.setdiff1d(index.above(tangent.query, limit, mask), rows, assume_unique=True)
    pool = _joined(pool, _scored(searchable, more, user))
    return _answer(searchable, pool, count, not math.isnan(limit))


def _first(searchable: Searchable, mask: Bytes, query: Float32s, count: int) -> _Fetched:
    """The first rows to look at: the largest products among the mask's rows."""
    wanted, index = _FIRST_FETCH + 2 * count, searchable.index
    share = np.bitwise_count(mask).sum() / len(index)
    if len(index) >= _WIDE_ROWS and share > _WIDE_SHARE:
        # FAISS scans twice as fast without a selector: fetch more, then drop what may not serve.
        fetched = _fetched(index, query, int(1.5 * wanted / share), None)
        kept = fetched.rows[among(mask, fetched.rows)]
        if len(kept) >= _FIRST_FETCH // 2 + count:
            return _Fetched(kept, fetched.rest)
    return _fetched(index, query, wanted, mask)


def _fetched(index: AdIndex, query: Float32s, wanted: int, mask: Bytes | None) -> _Fetched:
    values, rows = index.search(query, wanted, mask)
    return _Fetched(rows, float(values[-1]) if len(rows) == wanted else -math.inf)


def _unbounded(searchable: Searchable, eligible: Bytes, count: int) -> Int64s:
    """Eligible rows that no search finds: CPC ads beyond the index, the best CPM ads."""
    always = searchable.always[among(eligible, searchable.always)]
    if not len(searchable.by_bid):
        return always
    return np.concatenate((always, _first_eligible(searchable.by_bid, eligible, count)))


def _first_eligible(rows: Int64s, eligible: Bytes, count: int) -> Int64s:
    found = rows[:0]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        found = np.concatenate((found, block[among(eligible, block)]))
        if len(found) >= count:
            break
    return found[:count]


def _set_bits(mask: Bytes) -> Int64s:
    """The rows of a packed bitmap, looking only into bytes that have any."""
    bytes_ = np.nonzero(mask)[0]
    bits = np.unpackbits(mask[bytes_, None], axis=1, bitorder="little")
    at, bit = np.nonzero(bits)
    rows: Int64s = bytes_[at] * 8 + bit
    return rows


def _scored(searchable: Searchable, rows: Int64s, user: UserSide) -> _Pool:
    scores = searchable.scores(rows, user)
    pctr = sigmoid(scores)
    ecpm = expected_cpm(pctr, searchable.bid_micros[rows], searchable.per_click[rows])
    return _Pool(rows, scores, pctr, ecpm)


def _joined(first: _Pool, second: _Pool) -> _Pool:
    return _Pool(
        np.concatenate((first.rows, second.rows)),
        np.concatenate((first.scores, second.scores)),
        np.concatenate((first.pctr, second.pctr)),
        np.concatenate((first.ecpm, second.ecpm)),
    )


def _answer(searchable: Searchable, pool: _Pool, count: int, certified: bool) -> Retrieved:
    best = pool.best(searchable, count)
    return Retrieved(pool.rows[best], pool.pctr[best], certified)


def tangent_at(user: UserSide, at: float, reach: Reach) -> Tangent:
    """The bound that touches log σ at s₀ = `at`, raised by what float32 sums may lose."""
    slope = 1.0 / (1.0 + math.exp(min(at, 700.0)))
    latent = slope * user.latent.astype(np.float64)
    query = np.concatenate((latent, (slope, 1.0))).astype(np.float32)
    log_probability = -float(np.logaddexp(0.0, -at))
    constant = log_probability + slope * (user.offset - at)
    return Tangent(query, constant + _slack(latent, slope, reach) + 1e-12 * abs(constant))


def _slack(latent: Float64s, slope: float, reach: Reach) -> float:
    """Largest error of a float32 inner product with an index row.

    A sum of n products errs by at most γ_n Σ|q_i v_i| with γ_n = n·u / (1 − n·u), in any order of
    summation (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Four more
    operations stand for the rounding of the query, of the row's and of the live log bid.
    """
    operations = (len(latent) + 6) * _UNIT
    magnitude = float(np.linalg.norm(latent)) * reach.latent + slope * reach.main + reach.log_bid
    return operations / (1.0 - operations) * magnitude
