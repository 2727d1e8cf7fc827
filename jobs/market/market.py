"""The marketplace itself: what it holds, who is eligible, what is true, what would be best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jobs.market.ads import Shape, draw_ads
from jobs.market.exposure import popularity_weights, shown_ads
from jobs.market.people import HOURS, Visitors, draw_visitors
from jobs.market.truth import Spreads, draw_truth
from models.types import Ad, Advertiser, Bools, Campaign, Float64s, Int64s

START_MS = 1_767_571_200_000
"""The default first moment of a market, 2026-01-05T00:00:00Z: a Monday, as births assume."""
DAY_MS = 86_400_000
MIN_ADS = 10
_POPULATION = 20_000
_CALIBRATION = 60_000
_MEDIAN_DELAY_S = 198.0
_DELAY_SPREADS = (1.98, 4.74)


class Market:
    """A seeded marketplace; everything about it follows from its arguments.

    `ads`: live at the start; `click_rate`: of ads shown by popularity; `days` and `day_ms`: the
    run's length, in days of so many ms (births, flights and drift scale with it); `delay_scale`:
    click delays as a multiple of those of conversions in public logs (median 198 s); `bid_spread`:
    the spread of log bids as a multiple of that of public logs (1.20 for CPC, 1.39 for CPM).

    Ads have the ids 1 … `size`; those born during the run come last, in time order. Arrays over
    all ads have ad id i in row i − 1. Raises `ValueError` for arguments out of range.
    """

    def __init__(
        self,
        seed: int,
        ads: int = 2_000,
        click_rate: float = 0.04,
        *,
        start_ms: int = START_MS,
        days: float = 10.0,
        day_ms: int = DAY_MS,
        delay_scale: float = 0.01,
        bid_spread: float = 1.0,
        spreads: Spreads | None = None,
    ) -> None:
        _check(ads, click_rate, days, day_ms, delay_scale)
        self.shape = Shape(ads, click_rate, start_ms, days, day_ms, bid_spread)
        self.seed, self.delay_scale = seed, delay_scale
        self.spreads = spreads or Spreads()
        streams = iter(np.random.default_rng(seed).spawn(3))
        self.ads = draw_ads(next(streams), self.shape)
        random = next(streams)
        population = draw_visitors(random, _POPULATION, self.spreads.hidden)
        self.weights = popularity_weights(random, self.ads, population)
        self.truth = draw_truth(random, self.ads, population, self.spreads, start_ms, day_ms)
        self._calibrate(next(streams))

    @property
    def size(self) -> int:
        """How many ads there are, those yet to be born included."""
        return len(self.ads)

    @property
    def end_ms(self) -> int:
        """The run's end."""
        return self.shape.start_ms + int(self.shape.days * self.shape.day_ms)

    def catalog(self) -> tuple[list[Advertiser], list[Campaign], list[Ad]]:
        """What the catalog holds at the start; ads in id order."""
        ads = [self.ads.ad(row) for row in range(self.shape.ads)]
        return self.ads.advertisers(), self.ads.campaigns(), ads

    def births(self, after_ms: int, until_ms: int) -> list[Ad]:
        """The ads born at `after_ms` < t ≤ `until_ms`; their campaigns are in the catalog."""
        born = self.ads.born_ms[self.shape.ads :]
        rows = np.searchsorted(born, (after_ms, until_ms), side="right") + self.shape.ads
        return [self.ads.ad(row) for row in range(*rows.tolist())]

    def visitor(self, random: np.random.Generator, hour: int | None = None) -> Visitors:
        """One visitor; see `visitors`. Its `features()` are what a request may say of it."""
        return self.visitors(random, 1, hour)

    def visitors(
        self, random: np.random.Generator, n: int, hour: int | Int64s | None = None
    ) -> Visitors:
        """n visitors, at the given hours or at hours drawn from the day curve."""
        codes = None if hour is None else np.asarray(hour).astype(np.int8)
        return draw_visitors(random, n, self.spreads.hidden, codes)

    def hour_of(self, now_ms: int | Int64s) -> Int64s:
        """The market's hour, 0 to 23, at a time."""
        in_day = (np.asarray(now_ms) - self.shape.start_ms) % self.shape.day_ms
        return in_day * HOURS // self.shape.day_ms

    def true_pctr(
        self, visitors: Visitors, ad_ids: Int64s, now_ms: int | Int64s | None = None
    ) -> Float64s:
        """float64 [n]: true click probability of ad `ad_ids[i]` for visitor i, or for the only one.

        `now_ms` defaults to the start. Raises `IndexError` for an id the market does not have.
        """
        at = self.shape.start_ms if now_ms is None else now_ms
        return _sigmoid(self.truth.logits(visitors, self._rows(ad_ids), at))

    def true_ecpm_micros(
        self, visitors: Visitors, ad_ids: Int64s, now_ms: int | Int64s | None = None
    ) -> Float64s:
        """float64 [n]: the expected revenue of a thousand such impressions at the market's bids."""
        rows = self._rows(ad_ids)
        bids = self.ads.bid_micros[rows].astype(np.float64)
        per_click = 1000.0 * self.true_pctr(visitors, ad_ids, now_ms) * bids
        return np.where(self.ads.is_cpc[rows], per_click, bids)

    def live(self, now_ms: int | None = None) -> Bools:
        """bool [size]: which ads are born and whose flight goes on."""
        at = self.shape.start_ms if now_ms is None else now_ms
        found: Bools = (self.ads.born_ms <= at) & (at < self.ads.end_ms)
        return found

    def eligible(self, visitor: Visitors, now_ms: int | None = None) -> Bools:
        """bool [size]: which ads are live and target the one visitor, by the drawn clauses."""
        found = self.ads.audience.includes(self.ads.campaign, visitor.bits)
        found &= self.live(now_ms)
        return found

    def oracle(
        self, visitor: Visitors, now_ms: int | None = None, mask: Bools | None = None
    ) -> int | None:
        """The id of the ad with the largest true eCPM of those eligible (and in `mask`).

        None where there is no such ad.
        """
        ids = self._candidates(visitor, now_ms, mask)
        if not len(ids):
            return None
        return int(ids[self.true_ecpm_micros(visitor, ids, now_ms).argmax()])

    def random_choice(
        self,
        visitor: Visitors,
        random: np.random.Generator,
        now_ms: int | None = None,
        mask: Bools | None = None,
    ) -> int | None:
        """A control: the id of any ad of those eligible (and in `mask`); None if there is none."""
        ids = self._candidates(visitor, now_ms, mask)
        return int(random.choice(ids)) if len(ids) else None

    def click_delay_s(self, random: np.random.Generator, n: int = 1) -> Float64s:
        """float64 [n]: seconds from impression to click, with the heavy tail of public logs.

        Log-normal on each side of the median, so that the quartiles of conversions (52 s, 198 s,
        81 min) are met; all times are multiplied by `delay_scale`.
        """
        noise = random.normal(0.0, 1.0, n)
        below, above = _DELAY_SPREADS
        delays = _MEDIAN_DELAY_S * np.exp(noise * np.where(noise < 0, below, above))
        return np.asarray(self.delay_scale * delays, np.float64)

    def shown(
        self, random: np.random.Generator, visitors: Visitors, times_ms: Int64s, uniform: bool
    ) -> Int64s:
        """int64 [n]: for each visitor an eligible ad's row, by popularity or `uniform`-ly."""
        weights = np.ones(self.size) if uniform else self.weights
        return shown_ads(random, self.ads, weights, visitors, times_ms)

    def _candidates(self, visitor: Visitors, now_ms: int | None, mask: Bools | None) -> Int64s:
        found = self.eligible(visitor, now_ms)
        return np.flatnonzero(found if mask is None else found & mask) + 1

    def _rows(self, ad_ids: Int64s) -> Int64s:
        rows = np.asarray(ad_ids, np.int64) - 1
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.size:
            raise IndexError(f"ad ids of this market are 1 to {self.size}")
        return rows

    def _calibrate(self, random: np.random.Generator) -> None:
        """Set the level at which impressions shown by popularity have the wanted click rate."""
        visitors = self.visitors(random, _CALIBRATION)
        times = np.full(_CALIBRATION, self.shape.start_ms)
        rows = self.shown(random, visitors, times, uniform=False)
        logits = self.truth.logits(visitors, rows, times)
        self.truth = replace(self.truth, level=_level(logits, self.shape.click_rate))


def _check(ads: int, click_rate: float, days: float, day_ms: int, delay_scale: float) -> None:
    if ads < MIN_ADS:
        raise ValueError(f"ads is {ads}; a market needs at least {MIN_ADS}")
    if not 0 < click_rate < 1:
        raise ValueError(f"click_rate is {click_rate}; it must lie between 0 and 1")
    if min(days, day_ms, delay_scale) <= 0:
        raise ValueError("days, day_ms and delay_scale must be above 0")


def _level(logits: Float64s, rate: float) -> float:
    """The number to add to all logits so that their mean probability is `rate`, by bisection."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        if _sigmoid(logits + middle).mean() < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmoid(logits: Float64s) -> Float64s:
    found: Float64s = 1.0 / (1.0 + np.exp(-logits))
    return found
