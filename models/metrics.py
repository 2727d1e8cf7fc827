"""How good predictions are: AUC, log loss, calibration, with standard errors and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.types import Float64s, Int64s

_EDGE = 1e-15
"""Predictions are kept this far from 0 and 1, so that one certain mistake is not infinite."""

LEVELS = 4096
"""How finely predictions are told apart where an exact order would cost too much."""

RESAMPLED_LEVELS = 512
"""The same in a bootstrap: an interval is some hundred times wider than what this blurs."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its 95 % bootstrap interval, NaN where it has none."""

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
    clicked, rank = np.asarray(label) > 0, _ranks(np.asarray(predicted, np.float64))
    return float(auc_of_counts(*_counts(rank, clicked)))


def auc_of_counts(clicks: npt.ArrayLike, others: npt.ArrayLike) -> Float64s:
    """AUC of each row of counts, events of one level being ties: float64 [...].

    `clicks`, `others`: [..., levels], how many of each are at each level, in ascending order. It is
    the Mann–Whitney statistic over the number of pairs; NaN where there are no pairs.
    """
    on, off = np.asarray(clicks, np.float64), np.asarray(others, np.float64)
    below = np.cumsum(off, axis=-1) - off / 2
    pairs = on.sum(axis=-1) * off.sum(axis=-1)
    won = (on * below).sum(axis=-1)
    return np.asarray(np.divide(won, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0))


def levels(predicted: npt.ArrayLike, label: npt.ArrayLike, most: int = LEVELS) -> Int64s:
    """The level of each event, from 0 up in the order of prediction: int64 [n].

    Equal predictions share a level. Others share one only with events so near in rank that no more
    than about 1/`most` of the clicks and as many of the other events lie between them: over levels
    AUC is off by less than that, mostly by far less, and a long log has a bounded number of them.
    """
    clicked, rank = np.asarray(label) > 0, _ranks(np.asarray(predicted, np.float64))
    parted = np.zeros(int(rank.max(initial=-1)) + 1, np.bool_)
    for count in _counts(rank, clicked):
        middle = (np.cumsum(count) - count / 2) * (most / max(int(count.sum()), 1))
        parted[1:] |= np.diff(np.floor(middle)) > 0
    return np.asarray(np.cumsum(parted)[rank])


def calibration(predicted: npt.ArrayLike, label: npt.ArrayLike) -> float:
    """Σ predicted / Σ observed; NaN without a click."""
    observed = float(np.sum(label, dtype=np.float64))
    return float(np.sum(predicted, dtype=np.float64)) / observed if observed else float("nan")


def calibration_error(predicted: npt.ArrayLike) -> float:
    """The standard error of calibration if the predictions are right: √Σp(1−p) / Σp."""
    p = np.asarray(predicted, np.float64)
    return float(np.sqrt((p * (1 - p)).sum()) / p.sum()) if len(p) else float("nan")


def bootstrap(
    predicted: npt.ArrayLike, label: npt.ArrayLike, seed: int, resamples: int = 1000
) -> dict[str, Interval]:
    """`auc`, `log_loss` and `calibration` with 95 % intervals from a Poisson bootstrap.

    Each event counts a Poisson(1) number of times in each resample (a multinomial one in the limit
    of many events). Events of one level and label count together a Poisson number of times, of
    their number's mean, so a resample costs one draw for each such group and not for each event.
    Resamples without a click, or with nothing else, say nothing of the figures that need both; the
    bounds are NaN where all are such. The same seed gives the same intervals.
    """
    p, y = np.asarray(predicted, np.float64), np.asarray(label) > 0
    level = levels(p, y, RESAMPLED_LEVELS)
    cell, cells = 2 * level + y, 2 * (int(level.max(initial=-1)) + 1)
    counts = np.bincount(cell, minlength=cells)
    loss, mean = (
        np.bincount(cell, each, cells) / np.maximum(counts, 1) for each in (losses(p, y), p)
    )
    drawn = np.random.default_rng(seed).poisson(counts, (resamples, cells)).astype(np.float64)
    others, clicks = drawn[:, ::2], drawn[:, 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "auc": _interval(auc(p, y), auc_of_counts(clicks, others)),
            "log_loss": _interval(log_loss(p, y), drawn @ loss / drawn.sum(axis=1)),
            "calibration": _interval(calibration(p, y), drawn @ mean / clicks.sum(axis=1)),
        }


def _interval(value: float, drawn: Float64s) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _ranks(p: Float64s) -> Int64s:
    """The rank of each prediction among the distinct ones, from 0: int64 [n]."""
    order = np.argsort(p, kind="stable")
    rank = np.empty(len(p), np.int64)
    rank[order] = np.cumsum(np.diff(p[order], prepend=p[order[:1]]) > 0)
    return rank


def _counts(rank: Int64s, clicked: npt.NDArray[np.bool_]) -> tuple[Int64s, Int64s]:
    """How many clicks and how many other events have each rank: int64 [ranks] each."""
    ranks = int(rank.max(initial=-1)) + 1
    on, off = (np.bincount(rank[which], minlength=ranks) for which in (clicked, ~clicked))
    return on, off
