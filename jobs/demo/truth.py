"""What the market's true probabilities say of a page, and what else could have been shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from jobs.demo.messages import Gain
from jobs.demo.world import CLICK_RATE
from jobs.market import Market, Visitors
from models.types import Bools, Float64s, Int64s


class Judge:
    """Weighs pages. `inactive`: ads that are paused or retired, which nobody may choose."""

    def __init__(self, market: Market) -> None:
        self._market = market
        per_click = 1000 * CLICK_RATE * market.ads.bid_micros
        self._unlearned = np.where(market.ads.is_cpc, per_click, market.ads.bid_micros)
        self._active: Bools = np.ones(market.size, np.bool_)

    def set_inactive(self, ad_ids: Collection[int]) -> None:
        """Take these ads, and no others, off the market."""
        self._active[:] = True
        self._active[[ad_id - 1 for ad_id in ad_ids]] = False

    def eligible(self, visitor: Visitors, now_ms: int) -> Int64s:
        """int64 [n]: ids of the ads that may be shown, by the market's own targeting."""
        found = self._market.eligible(visitor, now_ms) & self._active
        return np.flatnonzero(found) + 1

    def strays(self, visitor: Visitors, ad_ids: Sequence[int], now_ms: int) -> list[int]:
        """Those of `ad_ids` that are not live or do not target the visitor; states aside."""
        found = self._market.eligible(visitor, now_ms)
        return [ad_id for ad_id in ad_ids if not found[ad_id - 1]]

    def clicks(self, visitor: Visitors, ad_ids: Sequence[int], now_ms: int) -> Float64s:
        """float64 [n]: the true click probability of each ad."""
        return self._market.true_pctr(visitor, np.array(ad_ids, np.int64), now_ms)

    def weigh(
        self, visitor: Visitors, chosen: Sequence[int], others: Int64s, now_ms: int
    ) -> tuple[Gain, Gain, Gain, Gain]:
        """What was chosen, a random choice among `others` (n ≥ 1), the highest bids, the best."""
        slots = len(chosen)
        ctr = self._market.true_pctr(visitor, others, now_ms)
        micros = self._market.true_ecpm_micros(visitor, others, now_ms)
        everything = np.arange(len(others))
        by_bid = _best(self._unlearned[others - 1], slots)
        best = _best(micros, slots)
        shown = np.array(chosen, np.int64)
        of_chosen = Gain(
            float(self._market.true_pctr(visitor, shown, now_ms).mean()),
            float(self._market.true_ecpm_micros(visitor, shown, now_ms).mean()),
        )
        rest = (_gain(ctr, micros, rows) for rows in (everything, by_bid, best))
        return of_chosen, *rest  # type: ignore[return-value]  # one gain for each of the three


def _best(values: Float64s, count: int) -> Int64s:
    return np.argsort(-values, kind="stable")[:count]


def _gain(ctr: Float64s, micros: Float64s, rows: Int64s) -> Gain:
    return Gain(float(ctr[rows].mean()), float(micros[rows].mean()))
