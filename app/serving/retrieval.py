"""Exact top-k by eCPM from bounds on inner products, with a certificate.

For a CPC ad `log(eCPM/1000) = log bid + log σ(s)`, and log σ is concave, so for any s₀

    log σ(s) ≤ log σ(s₀) + (1 − σ(s₀)) (s − s₀),

a bound that is an inner product of `[(1 − p₀) ν_u, 1 − p₀, 1]` with the index's rows
`[ν_a, w_a, log bid]`, which `models.bounds` bounds in turn, in falling order for a typical user.
The first eligible rows of that order are scored exactly with live bids. The k-th best value so far
is what any other ad must reach: the scan ends where no later row can, and of the rows before only
those are scored whose own bound can. Each ad scored raises what the others must reach. What the
scan leaves out is below the k-th best, so the answer equals brute force over the eligible ads.

A lowered bid keeps the bound true. Ads that the index cannot bound (new, changed, a raised bid) are
always scored; CPM ads need no prediction and come from a list sorted by bid. With at most n ads of
an advertiser, the k-th best is that of the ads scored so far under the same limit. More ads can
only raise it (the sets within such a limit are a matroid), so the same argument holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from app.serving.auction import expected_cpm
from app.serving.bitmaps import among, rows_of, size_of, unpacked
from app.serving.pool import Pool, Wanted, within_limit
from models.bounds import Asked
from models.index import AdIndex, Reach
from models.offset import sigmoid
from models.types import Bools, Bytes, Float32s, Float64s, Int64s

_SCORE_ALL = 384
"""At most this many survivors are scored without asking for bounds."""
_FIRST = 24
"""Rows scored before the first limit, beside two for each that is wanted."""
_FEW_SHARE = 1 / 4
"""Below this share of eligible rows eligibility is looked up first and bounds are after it."""
_SLICE = 2048
"""Places of the scan's first step; each further one is four times as long."""
_AHEAD = 192
"""From so many rows waiting on, the best of them are scored at once to raise the limit."""
_BATCH = 512
"""Rows of the first step of scoring those that wait; each further one is four times as many."""
_TOO_MANY = 4096
"""From so many rows waiting on, their whole vectors are looked at before any more is scored."""
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
    inside; an ad that came or changed after it was built need not be. `advertisers`: int64 [n],
    for limits per advertiser; without them each ad counts as an advertiser's only one.
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
    advertisers: Int64s | None = None

    def scores(self, rows: Int64s, user: UserSide) -> Float64s:
        """s of some rows in float64: float64 [m]. Equal vectors give equal scores to the bit."""
        query = np.zeros(len(user.latent) + 2)  # the last column, the log bid, takes no part
        query[:-2], query[-2] = user.latent, 1.0
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
        vectors = self.vectors(rows).astype(np.float64)
        # Not a BLAS product: its result for a row depends on the row's place in the matrix.
        products: Float64s = np.einsum("ij,j->i", vectors, query)
        return products

    def vectors(self, rows: Int64s) -> Float32s:
        """[ν_a, w_a, log bid] of some rows: float32 [m, D+2]."""
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

    `certified`: no other eligible ad that the limit allows has a higher eCPM than the last of
    these. `scored` ads were scored for it, after `bounded` bounds.
    """

    rows: Int64s
    pctr: Float64s
    certified: bool
    scored: int = 0
    bounded: int = 0


@dataclass(frozen=True, slots=True)
class Tangent:
    """The line at s₀ above log σ: `constant` + [`latent`, `slope`, 1] · [ν, w, log bid] is at least
    log(eCPM/1000). `latent`: float64 [D]."""

    latent: Float64s
    slope: float
    constant: float


def retrieve(
    searchable: Searchable,
    eligible: Bytes,
    user: UserSide,
    count: int,
    floor_micros: int = 0,
    per_advertiser: int | None = None,
) -> Retrieved:
    """The `count` (≥ 1) best eligible ads, as far as they reach `floor_micros` of eCPM.

    `eligible`: packed bitmap over all rows; `per_advertiser`: at most so many (≥ 1) ads of one
    advertiser. Ads below the floor may be among those returned.
    """
    wanted = Wanted(count, floor_micros, per_advertiser)
    others = _unbounded(searchable, eligible, wanted)
    mask = eligible[: len(searchable.bounded)] & searchable.bounded
    left = size_of(mask)
    if left <= max(_SCORE_ALL, 2 * count):
        pool = scored(searchable, np.concatenate((rows_of(mask), others)), user)
        return _answer(pool, wanted, 0)
    return _Search(searchable, mask, left, others, user, wanted).run()


def scored(searchable: Searchable, rows: Int64s, user: UserSide) -> Pool:
    """Some rows, scored exactly with live bids."""
    scores = searchable.scores(rows, user)
    pctr = sigmoid(scores)
    ecpm = expected_cpm(pctr, searchable.bid_micros[rows], searchable.per_click[rows])
    owners = rows if searchable.advertisers is None else searchable.advertisers[rows]
    return Pool(rows, searchable.ad_ids[rows], owners, scores, pctr, ecpm)


def tangent_at(user: UserSide, at: float) -> Tangent:
    """The line that touches log σ at s₀ = `at`."""
    slope = 1.0 / (1.0 + math.exp(min(at, 700.0)))
    log_probability = -float(np.logaddexp(0.0, -at))
    constant = log_probability + slope * (user.offset - at)
    return Tangent(slope * user.latent.astype(np.float64), slope, constant + 1e-12 * abs(constant))


class _Search:
    """One search under way: `pool` is scored, `rows` wait with their `bounds`, best in no order.

    `limit`: what the product of a row that is still to be scored must reach.
    """

    def __init__(
        self,
        searchable: Searchable,
        mask: Bytes,
        left: int,
        others: Int64s,
        user: UserSide,
        wanted: Wanted,
    ) -> None:
        self.searchable, self.mask, self.user, self.wanted = searchable, mask, user, wanted
        self.index, self.order = searchable.index, searchable.index.bounds.order
        self.share = left / max(len(self.index), 1)
        first, self.start = self._first(min(left, _FIRST + 2 * wanted.count))
        self.pool = scored(searchable, np.concatenate((first, others)), user)
        self.tangent = tangent_at(user, self._typical(len(first)))
        self.asked: Asked = self.index.bounds.asked(self.tangent.latent, self.tangent.slope)
        self.rows, self.bounds = first[:0], np.zeros(0, np.float32)
        self.bounded = 0
        self._set_limit()

    def run(self) -> Retrieved:
        """Scan until nothing that is left can be among the best, then score what waits."""
        size = _SLICE
        while self.start < (end := self.asked.places_above(self.limit)):
            stop = min(self.start + size, end)
            self._look_at(self.start, stop)
            self.start, size = stop, 4 * size
            if len(self.rows) >= _AHEAD:
                self._score(_FIRST + self.wanted.count)
            if len(self.rows) >= _TOO_MANY:
                self._narrow()
        size = _BATCH
        while len(self.rows):
            self._score(size)
            size *= 4
        return _answer(self.pool, self.wanted, self.bounded)

    def _first(self, count: int) -> tuple[Int64s, int]:
        """The first `count` eligible rows, of which there are as many, and the place after them."""
        size = int(1.5 * count / self.share) + 64
        while True:
            rows = self.order[:size]
            found = np.flatnonzero(among(self.mask, rows))[:count]
            if len(found) == count:
                return rows[found], int(found[-1]) + 1
            size *= 4

    def _typical(self, first: int) -> float:
        """A middling score of the best of the first rows: where the bound had best be tight."""
        best = np.argsort(-self.pool.ecpm[:first])[: self.wanted.count]
        return float(np.sort(self.pool.scores[best])[len(best) // 2])

    def _look_at(self, start: int, stop: int) -> None:
        """Put the eligible rows of some places that can reach the limit to those that wait."""
        least = _below(self.limit - self.asked.shift)
        if self.share < _FEW_SHARE:
            places = start + np.flatnonzero(_looked_up(self.mask, self.order[start:stop]))
            bounds = self.asked.at_some(places)
            can = bounds >= least
            rows, bounds = self.order[places[can]], bounds[can]
        else:
            bounds = self.asked.at(start, stop)
            above = np.flatnonzero(bounds >= least)
            rows = self.order[start:stop][above]
            kept = among(self.mask, rows)
            rows, bounds = rows[kept], bounds[above][kept]
        self.bounded += stop - start
        self.rows = np.concatenate((self.rows, rows))
        self.bounds = np.concatenate((self.bounds, bounds))

    def _score(self, count: int) -> None:
        """Score those that wait with the best bounds; forget those that the new limit rules out."""
        if len(self.rows) > count:
            order = np.argpartition(-self.bounds, count)
            self.rows, self.bounds = self.rows[order], self.bounds[order]
        more = scored(self.searchable, self.rows[:count], self.user)
        self.pool = self.pool.joined(more)
        self._set_limit()
        self._forget(count)

    def _forget(self, count: int) -> None:
        """Let go of the first `count` rows that wait, and of those that the limit rules out."""
        can = self.bounds[count:] >= _below(self.limit - self.asked.shift)
        self.rows, self.bounds = self.rows[count:][can], self.bounds[count:][can]

    def _set_limit(self) -> None:
        self.limit = self.pool.needed(self.wanted) - self.tangent.constant

    def _narrow(self) -> None:
        """Bound those that wait by their whole vectors: the axes tell too little of them."""
        query = np.append(self.tangent.latent, (self.tangent.slope, 1.0)).astype(np.float32)
        slack = flat_slack(self.tangent, self.index.reach) - self.asked.shift
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            products = self.index.take(self.rows[part]) @ query
            self.bounds[part] = np.minimum(self.bounds[part], _above(products + slack))
        self._forget(0)


def _unbounded(searchable: Searchable, eligible: Bytes, wanted: Wanted) -> Int64s:
    """Eligible rows that no search finds: CPC ads beyond the index, the best CPM ads."""
    always = searchable.always[among(eligible, searchable.always)]
    if not len(searchable.by_bid):
        return always
    return np.concatenate((always, _first_eligible(searchable, eligible, wanted)))


def _first_eligible(searchable: Searchable, eligible: Bytes, wanted: Wanted) -> Int64s:
    """The first eligible CPM rows. Of an advertiser's the limit allows no more than the first."""
    rows, owners = searchable.by_bid, searchable.advertisers
    found, start, size = rows[:0], 0, 8 * wanted.count + 32
    while start < len(rows) and len(found) < wanted.count:
        block = rows[start : start + size]
        found = np.concatenate((found, block[among(eligible, block)]))
        if wanted.per_advertiser is not None and owners is not None:
            listed = owners[found].tolist()
            found = found[within_limit(listed, wanted.per_advertiser, wanted.count)]
        start, size = start + size, 4 * size
    return found[: wanted.count]


def _looked_up(mask: Bytes, rows: Int64s) -> Bools:
    """`among` for many rows: a byte for each row of the bitmap is quicker to look up."""
    if 32 * len(rows) < 8 * len(mask):
        return among(mask, rows)
    return unpacked(mask)[rows]


def _answer(pool: Pool, wanted: Wanted, bounded: int) -> Retrieved:
    best = pool.best(wanted)
    certified = not np.isnan(pool.ecpm).any()
    return Retrieved(pool.rows[best], pool.pctr[best], certified, len(pool.rows), bounded)


def _below(limit: float) -> np.float32:
    """A float32 that is not above the limit: a bound that equals it must not be lost."""
    below: np.float32 = np.nextafter(np.float32(limit), np.float32(-np.inf))
    return below


def _above(bounds: Float32s) -> Float32s:
    """The same, raised past the rounding of a sum."""
    above: Float32s = np.nextafter(bounds, np.float32(np.inf))
    return above


def flat_slack(tangent: Tangent, reach: Reach) -> float:
    """Largest error of a float32 inner product with an index row; see `models.bounds`."""
    operations = (len(tangent.latent) + 6) * _UNIT
    length = float(np.linalg.norm(tangent.latent))
    magnitude = length * reach.latent + tangent.slope * reach.main + reach.log_bid
    return operations / (1.0 - operations) * magnitude
