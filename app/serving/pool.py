"""Ads scored exactly, and what the best of them demand of any other ad."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from app.serving.auction import ranked
from models.types import Float64s, Int64s


@dataclass(frozen=True, slots=True)
class Wanted:
    """The `count` ≥ 1 best ads, at most `per_advertiser` ≥ 1 of one advertiser (None: any number).

    Ads below `floor_micros` of eCPM are of no use.
    """

    count: int
    floor_micros: int = 0
    per_advertiser: int | None = None

    @property
    def listed(self) -> int:
        """So many of an order mostly hold all that are wanted, those that the limit bars beside."""
        return 4 * self.count + 16


@dataclass(frozen=True, slots=True)
class Pool:
    """n ads scored exactly: int64 [n] `rows`, `ad_ids`, `advertisers`; float64 [n] `scores`,
    `pctr`, `ecpm` in micros."""

    rows: Int64s
    ad_ids: Int64s
    advertisers: Int64s
    scores: Float64s
    pctr: Float64s
    ecpm: Float64s

    def joined(self, other: Pool) -> Pool:
        """These ads, then the others."""
        return Pool(
            np.concatenate((self.rows, other.rows)),
            np.concatenate((self.ad_ids, other.ad_ids)),
            np.concatenate((self.advertisers, other.advertisers)),
            np.concatenate((self.scores, other.scores)),
            np.concatenate((self.pctr, other.pctr)),
            np.concatenate((self.ecpm, other.ecpm)),
        )

    def best(self, wanted: Wanted) -> Int64s:
        """Indices of the best, best first, equal ones by rising id."""
        n, size = len(self.ecpm), wanted.listed
        while size < n:
            # The first places of the whole order, in order: all values from some value on.
            least = np.partition(self.ecpm, n - size)[n - size]
            first = (self.ecpm >= least).nonzero()[0]
            order = first[ranked(self.ecpm[first], self.ad_ids[first])]
            kept = self._allowed(order, wanted)
            if len(kept) == wanted.count:
                return kept
            size *= 8
        return self._allowed(ranked(self.ecpm, self.ad_ids), wanted)

    def needed(self, wanted: Wanted) -> float:
        """log(eCPM/1000) that any other ad must reach to be among the best and at the floor."""
        last = self._last_of_best(wanted)
        least = float(wanted.floor_micros) if last < wanted.floor_micros else last
        return -math.inf if least <= 0.0 else math.log(least / 1000.0)

    def _last_of_best(self, wanted: Wanted) -> float:
        """The eCPM of the last of the best, −∞ where there are fewer than are wanted."""
        values = self.ecpm
        if len(values) < wanted.count:
            return -math.inf
        if wanted.per_advertiser is not None:
            best = self._allowed(np.argsort(-values), wanted)
            return float(values[best[-1]]) if len(best) == wanted.count else -math.inf
        return float(np.partition(values, len(values) - wanted.count)[-wanted.count])

    def _allowed(self, order: Int64s, wanted: Wanted) -> Int64s:
        """The first `count` of an order, the best first, that the limit allows."""
        limit = wanted.per_advertiser
        if limit is None:
            return order[: wanted.count]
        size = wanted.listed  # mostly enough; lists of a whole catalog would take long to make
        while True:
            kept = within_limit(self.advertisers[order[:size]].tolist(), limit, wanted.count)
            if len(kept) == wanted.count or size >= len(order):
                return order[kept]
            size *= 8


def within_limit(advertisers: list[int], per_advertiser: int, count: int) -> list[int]:
    """The places of the first `count` of n ads, the best first, of whose advertiser fewer than
    `per_advertiser` stand before them."""
    seen: dict[int, int] = {}
    kept: list[int] = []
    for place, owner in enumerate(advertisers):
        before = seen.get(owner, 0)
        if before < per_advertiser:
            seen[owner] = before + 1
            kept.append(place)
            if len(kept) == count:
                break
    return kept
