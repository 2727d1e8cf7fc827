"""Which ad each visitor of a log was shown, before any model had a say."""

from __future__ import annotations

import numpy as np

from jobs.market.ads import Ads
from jobs.market.people import GEO_BIT, GEOS, PLACEMENT_BIT, PLACEMENTS, Bits, Visitors
from models.types import Bools, Float64s, Int64s

_MOST_DRAWS = 1_000
_SAMPLE = 500
_POPULARITY_EXPONENT = 1.0
_FLAT_HEAD = 0.0062


def popularity_weights(random: np.random.Generator, ads: Ads, population: Visitors) -> Float64s:
    """float64 [n]: weights of draws among eligible ads that make impressions a power law.

    Of the impressions the top 1 % of ads has about 17 % and the top 10 % well over half, whatever
    their reach: a popular ad of a narrow audience is shown to much of that audience.
    """
    ranks = random.permutation(len(ads)) + 1
    shares = (ranks + _FLAT_HEAD * len(ads)) ** -_POPULARITY_EXPONENT
    weights = shares / _reach(ads, population)
    found: Float64s = weights / weights.sum()
    return found


def _reach(ads: Ads, population: Visitors) -> Float64s:
    """float64 [n]: the share of some visitors that each ad targets, never quite none."""
    campaigns = np.arange(len(ads.advertiser))
    hits = np.zeros(len(campaigns))
    for bits in population.bits[:_SAMPLE]:
        hits += ads.audience.includes(campaigns, bits)
    reach: Float64s = np.maximum(hits, 1.0)[ads.campaign] / _SAMPLE
    return reach


def shown_ads(
    random: np.random.Generator,
    ads: Ads,
    weights: Float64s,
    visitors: Visitors,
    times_ms: Int64s,
) -> Int64s:
    """int64 [n]: for each visitor the row of an ad drawn by `weights` among those eligible.

    By rejection, among the ads that its country and placement leave.
    """
    rows = np.zeros(len(visitors), np.int64)
    cells = visitors.geo.astype(np.int64) * len(PLACEMENTS) + visitors.placement
    order = np.argsort(cells, kind="stable")
    borders = np.searchsorted(cells[order], np.arange(len(GEOS) * len(PLACEMENTS) + 1))
    for cell in range(len(GEOS) * len(PLACEMENTS)):
        asking = order[borders[cell] : borders[cell + 1]]
        offered = np.flatnonzero(_reaches(ads, cell))
        rows[asking] = _drawn(
            random, ads, offered, weights[offered], visitors.bits[asking], times_ms[asking]
        )
    return rows


def _reaches(ads: Ads, cell: int) -> Bools:
    geo, placement = divmod(cell, len(PLACEMENTS))
    bits = np.uint64((1 << (GEO_BIT + geo)) | (1 << (PLACEMENT_BIT + placement)))
    found: Bools = ((ads.audience.allowed & bits) == bits)[ads.campaign]
    return found


def _drawn(
    random: np.random.Generator,
    ads: Ads,
    offered: Int64s,
    weights: Float64s,
    bits: Bits,
    times_ms: Int64s,
) -> Int64s:
    # The first ad targets everybody and never ends, so it is what remains where nothing else fits.
    rows = np.zeros(len(bits), np.int64)
    cumulative = np.cumsum(weights)
    pending = np.arange(len(bits))
    for _ in range(_MOST_DRAWS):
        if not len(pending):
            break
        draws = random.random(len(pending)) * cumulative[-1]
        found = np.searchsorted(cumulative, draws, side="right")
        drawn = offered[np.minimum(found, len(offered) - 1)]
        fits = _fits(ads, drawn, bits[pending], times_ms[pending])
        rows[pending[fits]] = drawn[fits]
        pending = pending[~fits]
    return rows


def _fits(ads: Ads, rows: Int64s, bits: Bits, times_ms: Int64s) -> Bools:
    found = ads.audience.includes(ads.campaign[rows], bits)
    found &= (ads.born_ms[rows] <= times_ms) & (times_ms < ads.end_ms[rows])
    return found
