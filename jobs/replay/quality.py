"""How well some predictions met some events: figures, intervals, whether the calibration holds."""

from __future__ import annotations

import math

import numpy as np

from jobs.replay.report import Intervals, Quality, Range
from models.metrics import auc, bootstrap, calibration, calibration_error, log_loss, losses
from models.types import Float64s

LEAST_OF_EACH = 10
"""An interval needs this many clicks and this many other events."""

TOLERANCE = 0.03
"""A calibration this near 1 holds, however many events say that it is not quite 1."""


def measured(predicted: Float64s, label: Float64s, seed: int) -> Quality:
    """The quality of predictions of n > 0 events: float64 [n] each; `seed` is the bootstrap's."""
    ratio, error = calibration(predicted, label), calibration_error(predicted)
    return Quality(
        events=len(label),
        clicks=int(label.sum()),
        predicted_clicks=float(predicted.sum()),
        auc=defined(auc(predicted, label)),
        log_loss=log_loss(predicted, label),
        calibration=defined(ratio),
        calibration_error=error,
        calibration_holds=holds(ratio, error) if math.isfinite(ratio) else None,
        intervals=_intervals(predicted, label, seed),
    )


def holds(ratio: float, error: float) -> bool:
    """Whether a calibration is within 0.97–1.03 or within two standard errors of 1."""
    return abs(ratio - 1.0) <= max(TOLERANCE, 2.0 * error)


def has_enough(label: Float64s) -> bool:
    """Whether there are clicks and other events enough to say how far chance reaches."""
    clicks = float(label.sum())
    return min(clicks, len(label) - clicks) >= LEAST_OF_EACH


def paired(ours: Float64s, theirs: Float64s, label: Float64s) -> tuple[float, Range]:
    """The mean difference of two predictors' log losses, event by event, and its 95 % interval."""
    difference = losses(ours, label) - losses(theirs, label)
    mean = float(difference.mean())
    reach = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return mean, (mean - reach, mean + reach)


def _intervals(predicted: Float64s, label: Float64s, seed: int) -> Intervals:
    if not has_enough(label):
        return Intervals(None, None, None)
    found = bootstrap(predicted, label, seed)
    return Intervals(**{name: (item.low, item.high) for name, item in found.items()})


def defined(value: float) -> float | None:
    """The value, or None for one that is not finite."""
    return float(value) if np.isfinite(value) else None
