"""The market's true click probabilities.

In logits: a level, an ad's effect that drifts slowly, the effect of the visitor's features, what
is hidden of the visitor, and interactions of visitor and ad, bilinear in three parts: interests
with categories, device with format, and a low-rank part of the other features with campaign and
creative. The spreads are those of public logs, each a parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jobs.market.ads import CATEGORIES, FORMATS, Ads
from jobs.market.people import AGES, DEVICES, GEOS, HOURS, INTERESTS, PLACEMENTS, Codes, Visitors
from models.types import Float64s, Int64s

DRIFT_DAYS = 10
_RANK = 4
_PARTS = (0.45, 0.20, 0.35)  # of the interactions' variance
_CHUNK = 65_536
_Table = tuple[Float64s, ...]


@dataclass(frozen=True, slots=True)
class Spreads:
    """Standard deviations in logits.

    `ad`: between ads; `visitor`: between visitors, whatever explains it; `within`: of one ad's
    logit between visitors as far as features tell, of which `interaction` is not the same for all
    ads; `drift`: of the change of an ad's effect over `DRIFT_DAYS`, shared by its campaign.
    """

    ad: float = 0.86
    visitor: float = 0.87
    within: float = 0.45
    interaction: float = 0.36
    drift: float = 0.5

    @property
    def features(self) -> float:
        """Of the main effects of visitors' features."""
        return float(np.sqrt(self.within**2 - self.interaction**2))

    @property
    def hidden(self) -> float:
        """Of what the features do not tell of a visitor."""
        return float(np.sqrt(self.visitor**2 - self.features**2))


@dataclass(frozen=True, slots=True)
class Truth:
    """The true model; see the module. Arrays are float64.

    `ad_effect`, `drift_size`, `drift_phase`: [n]; `ad_vectors`: [n, 24]; `visitor_tables`: one
    table of feature effects and of vectors for each visitor feature, in `_features`' order, the
    effect in the first column; `centre`: [25], the population mean of their sums.
    """

    level: float
    ad_effect: Float64s
    drift_size: float
    drift_phase: Float64s
    ad_vectors: Float64s
    visitor_tables: _Table
    centre: Float64s
    start_ms: int
    turn_ms: float

    def logits(self, visitors: Visitors, rows: Int64s, now_ms: int | Int64s) -> Float64s:
        """float64 [n]: of visitor i (or of the only one) seeing ad `rows[i]` at `now_ms`."""
        if len(visitors) != 1:
            return self._pairwise(visitors, rows, np.broadcast_to(now_ms, len(rows)))
        visitor = self._visitor(visitors)[0]
        mains = visitor[0] + visitors.hidden[0] + self.ad_logits(rows, now_ms)
        found: Float64s = mains + self.ad_vectors[rows] @ visitor[1:]
        return found

    def ad_logits(self, rows: Int64s, now_ms: int | Int64s) -> Float64s:
        """The level and the ads' drifting effects: the logit at the mean visitor."""
        turns = (np.asarray(now_ms) - self.start_ms) / self.turn_ms
        drift = self.drift_size * np.sin(np.pi * turns + self.drift_phase[rows])
        found: Float64s = self.level + self.ad_effect[rows] + drift
        return found

    def _pairwise(self, visitors: Visitors, rows: Int64s, now_ms: Int64s) -> Float64s:
        found = visitors.hidden + self.ad_logits(rows, now_ms)
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            vectors = self._visitor(visitors, part)
            found[part] += vectors[:, 0]
            found[part] += np.einsum("ij,ij->i", vectors[:, 1:], self.ad_vectors[rows[part]])
        return found

    def _visitor(self, visitors: Visitors, part: slice = slice(None)) -> Float64s:
        return _summed(visitors, self.visitor_tables, part) - self.centre


def draw_truth(
    random: np.random.Generator,
    ads: Ads,
    population: Visitors,
    spreads: Spreads,
    start_ms: int,
    day_ms: int,
) -> Truth:
    """A model with the given spreads over `population` and `ads`, at level 0."""
    tables = _scaled(_visitor_tables(random), population, spreads.features)
    sums = _summed(population, tables)
    vectors = _ad_vectors(random, ads)
    centre = sums.mean(axis=0)
    scale = _interaction_scale(sums - centre, vectors, spreads.interaction)
    # The drift's own spread between ads at any one time is half of its change.
    steady = np.sqrt(spreads.ad**2 - (spreads.drift / 2) ** 2)
    return Truth(
        level=0.0,
        ad_effect=_standardised(_ad_effects(random, ads)) * steady,
        drift_size=spreads.drift / np.sqrt(2),
        drift_phase=random.uniform(0, 2 * np.pi, len(ads.advertiser))[ads.campaign],
        ad_vectors=vectors * scale,
        visitor_tables=tables,
        centre=centre,
        start_ms=start_ms,
        turn_ms=float(DRIFT_DAYS * day_ms),
    )


def _features(visitors: Visitors, part: slice) -> list[Codes]:
    columns = (visitors.geo, visitors.device, visitors.hour, visitors.age, visitors.placement)
    return [column[part] for column in columns]


def _summed(visitors: Visitors, tables: _Table, part: slice = slice(None)) -> Float64s:
    """float64 [n, 25]: each visitor's summed rows of the tables; the mean over interests."""
    *singles, of_interests = tables
    codes = _features(visitors, part)
    found: Float64s = singles[0][codes[0]]
    for table, column in zip(singles[1:], codes[1:], strict=True):
        found += table[column]
    interests = visitors.interests[part].astype(np.float64)
    found += (interests @ of_interests) / np.maximum(1.0, interests.sum(axis=1))[:, None]
    return found


def _visitor_tables(random: np.random.Generator) -> _Table:
    """For geo, device, hour, age, placement and interests: [values, 1 + 16 + 4 + 4]."""
    low_rank = slice(1 + len(CATEGORIES) + len(FORMATS), None)
    tables = []
    for size in (len(GEOS), len(DEVICES), HOURS, len(AGES), len(PLACEMENTS), len(INTERESTS)):
        table = np.zeros((size, low_rank.start + _RANK))
        table[:, 0] = random.normal(0.0, 1.0, size)
        table[:, low_rank] = random.normal(0.0, 1.0, (size, _RANK))
        tables.append(table)
    of_hours, of_interests = tables[2], tables[5]
    of_hours[:] = _smoothed(of_hours)
    of_interests[:, low_rank] = 0.0
    of_interests[:, 1 : 1 + len(CATEGORIES)] = random.normal(0, 1, (len(INTERESTS), 16))
    tables[1][:, 1 + len(CATEGORIES) : low_rank.start] = random.normal(0, 1, (len(DEVICES), 4))
    return tuple(tables)


def _smoothed(of_hours: Float64s) -> Float64s:
    """Neighbouring hours are alike: a circular mean over seven, back to unit spread."""
    mean = sum(np.roll(of_hours, shift, axis=0) for shift in range(-3, 4)) / np.sqrt(7)
    return np.asarray(mean, np.float64)


def _scaled(tables: _Table, population: Visitors, spread: float) -> _Table:
    factor = spread / _summed(population, tables)[:, 0].std()
    for table in tables:
        table[:, 0] *= factor
    return tables


def _ad_vectors(random: np.random.Generator, ads: Ads) -> Float64s:
    """float64 [n, 24]: category shares, format, low-rank part; centred over the ads."""
    categories = ads.categories / ads.categories.sum(axis=1, keepdims=True)
    formats = np.eye(len(FORMATS))[ads.format]
    of_campaigns = random.normal(0.0, 1.0, (len(ads.advertiser), _RANK))
    low_rank = of_campaigns[ads.campaign] + random.normal(0.0, 0.4, (len(ads), _RANK))
    vectors = np.hstack((categories, formats, low_rank))
    centred: Float64s = vectors - vectors.mean(axis=0)
    return centred


def _interaction_scale(sums: Float64s, vectors: Float64s, spread: float) -> Float64s:
    """float64 [24]: the factor that gives each part its share of the interactions' variance."""
    borders = (0, len(CATEGORIES), len(CATEGORIES) + len(FORMATS), vectors.shape[1])
    scale = np.empty(vectors.shape[1])
    for share, (start, end) in zip(_PARTS, pairwise(borders), strict=True):
        scores = sums[:2000, 1 + start : 1 + end] @ vectors[:2000, start:end].T
        scale[start:end] = spread * np.sqrt(share) / max(scores.std(), 1e-12)
    return scale


def _ad_effects(random: np.random.Generator, ads: Ads) -> Float64s:
    """Effects of advertiser, campaign, categories, format and creative, in rough proportion."""
    campaigns = len(ads.advertiser)
    of_campaigns = random.normal(0.0, 0.6, campaigns)
    of_campaigns += random.normal(0.0, 0.4, campaigns)[ads.advertiser]
    categories = ads.categories / ads.categories.sum(axis=1, keepdims=True)
    found: Float64s = of_campaigns[ads.campaign] + random.normal(0.0, 0.2, len(ads))
    found += categories @ random.normal(0.0, 0.3, len(CATEGORIES))
    found += random.normal(0.0, 0.1, len(FORMATS))[ads.format]
    return found


def _standardised(values: Float64s) -> Float64s:
    centred: Float64s = values - values.mean()
    return centred / max(float(centred.std()), 1e-12)
