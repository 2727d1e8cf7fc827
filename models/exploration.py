"""Trying new ads: which are new, how uncertain their scores are, and which one to try.

A new ad is scored as what its campaign and advertiser are, so one that is better than they let it
seem may never be shown, and what is never shown is never learned. The trainer knows what it does
not know: each main effect has a precision π, the prior's 1/τ² and the evidence `Σ p(1 − p)`, so the
score of an ad is uncertain by about `Σ 1/π` over its features. One slot of some pages goes to a new
ad, chosen by one of three rules:

- `uniform`: any new ad (ε-greedy);
- `upper`: the largest eCPM at the score plus so many standard deviations (an upper-confidence rule,
  L. Li et al., WWW 2010);
- `thompson`: the largest eCPM at a score drawn from its distribution (O. Chapelle and L. Li, NIPS
  2011).

Draws depend on the decision and the ad alone, never on a bid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash

from models.offset import Model, found
from models.priors import normals
from models.types import Bools, Float64s, Int64s, Ragged

Rule = Literal["uniform", "upper", "thompson"]

RULE: Rule = "thompson"
"""What is served: see docs/auction.md for the comparison."""
DEVIATIONS = 2.0
"""Of the upper-confidence rule."""
NEW_ABOVE = 0.5
"""An ad is new while its own main effect keeps more than this part of its prior variance: until
the data weighs as much as the prior."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(48)


@dataclass(frozen=True, slots=True)
class Unsure:
    """n ads that may be tried: int64 [n] `ad_ids`; float64 [n] `log_bids`, `scores`, and the
    standard `deviations` of the scores."""

    ad_ids: Int64s
    log_bids: Float64s
    scores: Float64s
    deviations: Float64s

    def value(self, scores: Float64s) -> Float64s:
        """log(eCPM/1000) of each at these scores: float64 [..., n]."""
        return self.log_bids - np.logaddexp(0.0, -scores)


def is_new(model: Model, keys: Int64s, feature: int) -> Bools:
    """Whether the ads with these values (int64 [n]) of their own feature are new: bool [n].

    `feature`: the place of that feature, whose values no two ads share, among the ad features.
    """
    if not len(model.ad_prior_variance):
        return np.zeros(len(keys), np.bool_)
    rows, seen = found(model.ad_keys, keys)
    fresh = ~seen
    known = model.ad_variance[rows[seen]]
    fresh[seen] = known > NEW_ABOVE * model.ad_prior_variance[feature]
    return fresh


def score_variances(model: Model, ads: Ragged) -> Float64s:
    """The variance of each ad's sum of main effects: float64 [n]; interactions are left out."""
    counts = np.diff(ads.ptr)
    ids = ads.ids[ads.ptr[0] : ads.ptr[-1]]
    feature = np.repeat(np.tile(np.arange(ads.features), len(ads)), counts)
    variance = model.ad_prior_variance[feature]
    rows, seen = found(model.ad_keys, ids)
    variance[seen] = model.ad_variance[rows[seen]]
    # A feature's effect is the mean of its values'.
    shares = variance / np.repeat(counts.astype(np.float64), counts) ** 2
    ad = np.repeat(np.arange(len(ads)), counts.reshape(-1, ads.features).sum(axis=1))
    return np.asarray(np.bincount(ad, shares, minlength=len(ads)), np.float64)


def chance(decision: bytes) -> float:
    """A number that is uniform from 0 to 1 over decisions, the same on every worker."""
    return float(xxhash.xxh3_64_intdigest(decision, seed=1)) / 2.0**64


def pick(rule: Rule, decision: bytes, ads: Unsure) -> tuple[int, float]:
    """Which of n ≥ 1 ads to try, and the probability that this one is picked.

    A larger bid never takes an ad its turn: its value is the only one that rises.
    """
    if rule == "uniform":
        return int(_draws(decision, ads.ad_ids).argmax()), 1.0 / len(ads.ad_ids)
    if rule == "upper":
        return _first(ads.value(ads.scores + DEVIATIONS * ads.deviations), ads.ad_ids), 1.0
    drawn = ads.scores + _draws(decision, ads.ad_ids) * ads.deviations
    at = _first(ads.value(drawn), ads.ad_ids)
    return at, _probability_of_largest(at, ads)


def _draws(decision: bytes, ad_ids: Int64s) -> Float64s:
    """A standard normal number for each (decision, ad)."""
    return normals(ad_ids, 1, xxhash.xxh3_64_intdigest(decision, seed=2))[:, 0]


def _first(values: Float64s, ad_ids: Int64s) -> int:
    return int(np.lexsort((ad_ids, -values))[0])


def _probability_of_largest(at: int, ads: Unsure) -> float:
    """That a draw of this ad's value is above independent draws of all others': an integral over
    its own score by Gauss–Hermite quadrature."""
    own = ads.scores[at] + _NODES * ads.deviations[at]
    value = ads.log_bids[at] - np.logaddexp(0.0, -own)
    # The others' scores at which they are worth as much: log σ(s) = value − log bid.
    log_rate = np.minimum(value[:, None] - ads.log_bids[None, :], -1e-12)
    scores = log_rate - np.log(-np.expm1(log_rate))
    below = _normal_cdf((scores - ads.scores) / np.maximum(ads.deviations, 1e-9))
    never_more = value[:, None] >= ads.log_bids[None, :]
    below = np.where(never_more, 1.0, below)
    below[:, at] = 1.0
    weights = _WEIGHTS / _WEIGHTS.sum()
    return float(np.clip(weights @ below.prod(axis=1), 1e-6, 1.0))


def _normal_cdf(values: Float64s) -> Float64s:
    """Φ, off by at most 10⁻⁷ (M. Abramowitz and I. Stegun, Handbook of Mathematical Functions,
    26.2.17)."""
    size = np.abs(values)
    t = 1.0 / (1.0 + 0.2316419 * size)
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = np.exp(-0.5 * size * size) / math.sqrt(2.0 * math.pi) * series
    below: Float64s = np.where(values >= 0.0, 1.0 - tail, tail)
    return below
