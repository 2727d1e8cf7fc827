"""The auction: ads ranked by eCPM, priced by the generalised second price (GSP).

Money is in micros. eCPM is per thousand impressions: `1000 · pCTR · bid` for a CPC ad, the bid
itself for a CPM ad. With `e` the larger of the next ad's eCPM and the floor, a CPC ad pays the
smallest whole price per click at which its own eCPM would still reach `e`, a CPM ad `e` per
thousand: rounded up, at least 1, never above its bid. The pCTR that prices is the one that ranks.

Of one advertiser at most `per_advertiser` ads win. The next ad of a winner is the best one that
would take its slot if all of the winner's advertiser were away and the slots before it stood: what
the limit bars, and an advertiser's own other ads, set no price.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from models.types import Bools, Float64s, Int64s

_ROUNDING = 2.0**-50


@dataclass(frozen=True, slots=True)
class Candidates:
    """n ads that may win: int64 [n] `ad_ids`, `advertiser_ids`, `bid_micros`; float64 [n] `pctr`;
    bool [n] `per_click` (CPC, else CPM)."""

    ad_ids: Int64s
    advertiser_ids: Int64s
    bid_micros: Int64s
    per_click: Bools
    pctr: Float64s

    def ecpm(self) -> Float64s:
        """eCPM of each, float64 [n]."""
        return expected_cpm(self.pctr, self.bid_micros, self.per_click)

    def placed(self, at: int, ecpm: float, need: float) -> Placed:
        """Candidate `at` of this eCPM as the winner of a slot that is worth `need` to the next."""
        per_unit = float(1000.0 * self.pctr[at]) if self.per_click[at] else 1.0
        return Placed(at, math.floor(ecpm), price(need, per_unit, int(self.bid_micros[at])))


@dataclass(frozen=True, slots=True)
class Placed:
    """A slot's winner: its index among the candidates, its eCPM rounded down, and its price.

    `price_micros` is per click for a CPC ad, per thousand impressions for a CPM ad.
    """

    candidate: int
    ecpm_micros: int
    price_micros: int


def expected_cpm(pctr: Float64s, bid_micros: Int64s, per_click: Bools) -> Float64s:
    """eCPM of n ads, float64 [n], in micros per thousand impressions."""
    factor: Float64s = np.where(per_click, 1000.0 * pctr, 1.0)
    return factor * bid_micros


def ranked(ecpm: Float64s, ad_ids: Int64s) -> Int64s:
    """Indices by falling eCPM, equal ones by rising id: the same on every worker. int64 [n]."""
    order: Int64s = np.lexsort((ad_ids, -ecpm))
    return order


def auction(
    candidates: Candidates, *, slots: int, floor_micros: int, per_advertiser: int
) -> list[Placed]:
    """Fill up to `slots` slots, the best first; ads whose eCPM is below the floor do not take part.

    Give the best `candidates_needed` ads under the limit `most_of_one`: with them the answer is the
    one that all ads would give.
    """
    ecpm = candidates.ecpm()
    order = ranked(ecpm, candidates.ad_ids).tolist()
    values, advertisers = ecpm.tolist(), candidates.advertiser_ids.tolist()
    able = (at for at in order if values[at] >= floor_micros)
    listed = within_limit(able, advertisers, per_advertiser)
    return [
        candidates.placed(at, values[at], _need(listed[place:], values, advertisers, floor_micros))
        for place, at in enumerate(listed[:slots])
    ]


def _need(
    listed: list[int], values: list[float], advertisers: list[int], floor_micros: int
) -> float:
    """What the first of these is worth to the best other advertiser's ad, at least the floor."""
    owner = advertisers[listed[0]]
    rivals = (values[at] for at in listed[1:] if advertisers[at] != owner)
    return next(rivals, float(floor_micros))


def within_limit(order: Iterable[int], advertisers: list[int], per_advertiser: int) -> list[int]:
    """The indices of `order` without those whose advertiser has `per_advertiser` before them."""
    seen: dict[int, int] = {}
    kept = []
    for at in order:
        count = seen.get(advertisers[at], 0)
        if count < per_advertiser:
            seen[advertisers[at]] = count + 1
            kept.append(at)
    return kept


def most_of_one(slots: int, per_advertiser: int) -> int:
    """The limit as far as it matters: nobody has more ads on a page than it has slots."""
    return min(slots, per_advertiser)


def candidates_needed(slots: int, per_advertiser: int) -> int:
    """How many of the best ads under the limit decide winners and prices.

    After the last winner up to `most_of_one` − 1 ads of its advertiser may follow, which set no
    price; one more is another's.
    """
    return slots + most_of_one(slots, per_advertiser)


def price(need: float, per_unit: float, bid_micros: int) -> int:
    """The smallest whole price ≥ 1 whose eCPM, `price · per_unit`, reaches `need`; at most the bid.

    `per_unit` is `1000 · pCTR` for a CPC ad, 1 for a CPM ad.
    """
    if need <= per_unit or per_unit <= 0.0:
        return 1
    if per_unit == 1.0:
        return max(1, min(math.ceil(need), bid_micros))
    # Products and quotients of float64 are off by a few parts in 10¹⁶: 5000.000000000001 is 5000,
    # and equal pCTRs give exactly the next bid. Not by more, or a price would undercut the floor.
    least = math.ceil(need / per_unit * (1.0 - _ROUNDING))
    return max(1, min(least, bid_micros))
