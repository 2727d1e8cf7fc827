"""Figures over a moving window of events: what a replay's curves are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.replay.instant import written
from jobs.replay.predictions import Scored
from jobs.replay.report import Curves
from models.metrics import auc_of_counts, levels, losses
from models.types import Float64s, Int64s

POINTS = 240
LEAST_WINDOW = 500

Curve = list[float | None]


@dataclass(frozen=True, slots=True)
class Windows:
    """Runs of `size` events; `ends`: int64 [points], ascending, the position after each one's last.

    Each curve has a value for each window, null where its figure is not defined.
    """

    size: int
    ends: Int64s

    @classmethod
    def over(cls, events: int) -> Windows:
        """A twentieth of the events a window, but not few, and `POINTS` of them evenly spread."""
        size = min(events, max(LEAST_WINDOW, events // 20))
        return cls(size, np.unique(np.linspace(size, events, POINTS).astype(np.int64)))

    def __len__(self) -> int:
        return len(self.ends)

    def since(self, first: int) -> Windows:
        """The windows of events from position `first` on, counted from there."""
        return Windows(self.size, self.ends[self.ends - self.size >= first] - first)

    def log_loss(self, predicted: Float64s, label: Float64s) -> Curve:
        """The mean log loss in each window."""
        return _defined(self._sums(losses(predicted, label)) / self.size)

    def calibration(self, predicted: Float64s, label: Float64s) -> Curve:
        """Σ predicted / Σ observed in each window."""
        clicks = np.rint(self._sums(label))
        with np.errstate(divide="ignore"):
            return _defined(self._sums(predicted) / clicks)

    def auc(self, predicted: Float64s, label: Float64s) -> Curve:
        """AUC in each window, from the predictions' levels in the whole."""
        level, clicked = levels(predicted, label), label > 0
        count = int(level.max(initial=-1)) + 1
        found = []
        for end in self.ends:
            part = slice(end - self.size, end)
            here, clicks = level[part], clicked[part]
            on, off = (np.bincount(here[which], minlength=count) for which in (clicks, ~clicks))
            found.append(float(auc_of_counts(on, off)))
        return _defined(np.array(found))

    def _sums(self, values: Float64s) -> Float64s:
        through = np.concatenate(([0.0], np.cumsum(values)))
        return np.asarray(through[self.ends] - through[self.ends - self.size])


def curves(scored: Scored, windows: Windows) -> Curves:
    """The curves of the model in service and of what it is compared with."""
    label = scored.label
    return Curves(
        window=windows.size,
        time=[written(int(scored.time_ms[end - 1])) for end in windows.ends],
        auc=windows.auc(scored.model, label),
        auc_main_effects=windows.auc(scored.main_effects, label),
        log_loss=windows.log_loss(scored.model, label),
        log_loss_main_effects=windows.log_loss(scored.main_effects, label),
        log_loss_running_rate=windows.log_loss(scored.running_rate, label),
        calibration=windows.calibration(scored.model, label),
    )


def _defined(values: Float64s) -> Curve:
    return [float(value) if np.isfinite(value) else None for value in values]
