"""How good predictions are: AUC, log loss, calibration, with standard errors and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.types import Float64s

_EDGE = 1e-15
"""Predictions are kept this far from 0 and 1, so that one certain mistake is not infinite."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def losses(predicted: npt.ArrayLike, label: npt.ArrayLike) -> Float64s:
    """Log loss of each event: float64 [n]. `predicted` and `label`: [n]; NaN stays NaN."""
    p = np.clip(np.asarray(predicted, np.float64), _EDGE, 1 - _EDGE)
    y = np.asarray(label, np.float64)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


def log_loss(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Mean log loss; NaN for no events."""
    each = losses(predicted, label)
    return float(each.mean()) if len(each) else float("nan")


def auc(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Probability that a click is predicted above a non-click, ties one half; NaN without both."""
    y = np.asarray(label) > 0
    return _auc(_tie_groups(np.asarray(predicted, np.float64)), y, np.ones(len(y)))


def calibration(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Σ predicted / Σ observed; NaN without a click."""
    observed = float(np.sum(label, dtype=np.float64))
    return float(np.sum(predicted, dtype=np.float64)) / observed if observed else float("nan")


def calibration_error(predicted: npt.ArrayLike) -> float:
    """The standard error of calibration if the predictions are right: √Σp(1−p) / Σp."""
    p = np.asarray(predicted, np.float64)
    return float(np.sqrt((p * (1 - p)).sum()) / p.sum()) if len(p) else float("nan")


def bootstrap(
    predicted: npt.ArrayLike, label: npt.ArrayLike, seed: int, resamples: int = 200
) -> dict[str, Interval]:
    """`auc`, `log_loss` and `calibration` with 95 % intervals from a Poisson bootstrap.

    Each event counts a Poisson(1) number of times in each resample (a multinomial one in the limit
    of many events). The same seed gives the same intervals.
    """
    p, y = np.asarray(predicted, np.float64), np.asarray(label) > 0
    groups, each, rng = _tie_groups(p), losses(p, y), np.random.default_rng(seed)
    drawn = [
        _weighted(p, y, each, groups, rng.poisson(1.0, len(y)).astype(np.float64))
        for _ in range(resamples)
    ]
    whole = _weighted(p, y, each, groups, np.ones(len(y)))
    low, high = np.nanpercentile(np.array(drawn), [2.5, 97.5], axis=0)
    names = ("auc", "log_loss", "calibration")
    return {name: Interval(whole[i], float(low[i]), float(high[i])) for i, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class _Ties:
    """Events in ascending order of prediction, and the group of equal predictions of each."""

    order: npt.NDArray[np.intp]
    group: npt.NDArray[np.intp]


def _tie_groups(p: Float64s) -> _Ties:
    order = np.argsort(p, kind="stable")
    rises = np.diff(p[order], prepend=p[order[:1]]) > 0
    return _Ties(order, np.cumsum(rises))


def _auc(ties: _Ties, y: npt.NDArray[np.bool_], weight: Float64s) -> float:
    """The weighted Mann–Whitney statistic, a group of ties at a time."""
    if not len(y):
        return float("nan")
    clicks = np.bincount(ties.group, (weight * y)[ties.order])
    others = np.bincount(ties.group, (weight * ~y)[ties.order])
    below = np.cumsum(others) - others
    pairs = clicks.sum() * others.sum()
    return float((clicks * (below + others / 2)).sum() / pairs) if pairs else float("nan")


def _weighted(
    p: Float64s, y: npt.NDArray[np.bool_], each: Float64s, ties: _Ties, weight: Float64s
) -> tuple[float, float, float]:
    clicks, total = float((weight * y).sum()), float(weight.sum())
    return (
        _auc(ties, y, weight),
        float((weight * each).sum() / total) if total else float("nan"),
        float((weight * p).sum() / clicks) if clicks else float("nan"),
    )
