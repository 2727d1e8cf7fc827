"""Ads scored exactly, and what the best of them demand of any other ad."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from app.serving.auction import ranked
from models.types import Bools, Float64s, Int64s


@dataclass(frozen=True, slots=True)
class Wanted:
    """The `count` ≥ 1 best ads, at most `per_advertiser` ≥ 1 of one advertiser (None: any number).

    Ads below `floor_micros` of eCPM are of no use.
    """

    count: int
    floor_micros: int = 0
    per_advertiser: int | None = None


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
        if wanted.per_advertiser is None:
            return order[: wanted.count]
        size = 4 * wanted.count + 16  # mostly enough, and soon sorted
        while True:
            some = order[:size]
            kept = some[within_limit(self.advertisers[some], wanted.per_advertiser)]
            if len(kept) >= wanted.count or size >= len(order):
                return kept[: wanted.count]
            size *= 8


def within_limit(advertisers: Int64s, per_advertiser: int) -> Bools:
    """Which of n ads, the best first, have fewer than so many of their advertiser before them."""
    order = np.argsort(advertisers, kind="stable")
    grouped = advertisers[order]
    is_first = np.concatenate(([True], grouped[1:] != grouped[:-1]))[: len(grouped)]
    places = np.arange(len(grouped))
    starts = np.maximum.accumulate(np.where(is_first, places, 0))
    kept = np.empty(len(grouped), np.bool_)
    kept[order] = places - starts < per_advertiser
    return kept
