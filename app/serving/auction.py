"""The auction: ads ranked by eCPM, priced by the generalised second price (GSP).

Money is in micros. eCPM is per thousand impressions: `1000 · pCTR · bid` for a CPC ad, the bid
itself for a CPM ad. With `e` the larger of the next ad's eCPM and the floor, a CPC ad pays the
smallest whole price per click at which its own eCPM would still reach `e`, a CPM ad `e` per
thousand: rounded up, at least 1, never above its bid. The pCTR that prices is the one that ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.types import Bools, Float64s, Int64s

_ROUNDING = 1e-12


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
    ad_ids: Int64s,
    pctr: Float64s,
    bid_micros: Int64s,
    per_click: Bools,
    *,
    slots: int,
    floor_micros: int,
) -> list[Placed]:
    """Fill up to `slots` slots from n candidates, the best first.

    Ads whose eCPM is below the floor do not take part. The last winner is priced by the best ad
    left over, so give at least `slots + 1` candidates where there are as many.
    """
    ecpm = expected_cpm(pctr, bid_micros, per_click)
    order = ranked(ecpm, ad_ids)[: slots + 1].tolist()
    able = [at for at in order if ecpm[at] >= floor_micros]
    needs = [max(float(ecpm[at]), float(floor_micros)) for at in able[1:]] + [float(floor_micros)]
    return [
        Placed(
            at,
            math.floor(ecpm[at]),
            price(need, float(1000.0 * pctr[at]) if per_click[at] else 1.0, int(bid_micros[at])),
        )
        for at, need in zip(able[:slots], needs, strict=False)
    ]


def price(need: float, per_unit: float, bid_micros: int) -> int:
    """The smallest whole price ≥ 1 whose eCPM, `price · per_unit`, reaches `need`; at most the bid.

    `per_unit` is `1000 · pCTR` for a CPC ad, 1 for a CPM ad.
    """
    if need <= per_unit or per_unit <= 0.0:
        return 1
    # Products and quotients of float64 are off by a part in 10¹⁶: 5000.000000000001 is 5000, and
    # equal pCTRs give exactly the next bid.
    least = math.ceil(need / per_unit * (1.0 - _ROUNDING))
    return max(1, min(least, bid_micros))
