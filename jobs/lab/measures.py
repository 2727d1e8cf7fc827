"""What is measured of a run, the same for every method.

Regret of an event is the Kullback–Leibler divergence of the served prediction from the market's own
probability: the expected log loss above that of the truth. It is capped at `CAP`, and once a
parameter is not finite every further event counts `CAP`, so that a blown-up run costs much but does
not decide a mean by how far it blew up.

A run *diverges* when a parameter is not finite; when |s| > `SCORE_LIMIT` on the probe impressions
under the trainer's raw state; or when over some `WINDOW` chunks the served predictions' loss minus
that of the running click rate, paired by event, is above three standard errors.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from models.metrics import losses
from models.types import Float32s, Float64s

CAP: Final = 1.0
SCORE_LIMIT: Final = 20.0
WINDOW: Final = 5
_ERRORS: Final = 3.0
_EDGE: Final = 1e-15
_FIRST_WEIGHT: Final = 20.0

Criterion = Literal["finite", "scores", "loss"]
CRITERIA: Final[tuple[Criterion, ...]] = ("finite", "scores", "loss")


def regrets(probability: Float64s, predicted: Float64s) -> Float64s:
    """float64 [n]: KL of each prediction from the market's, at most `CAP`; `CAP` for NaN."""
    p, q = probability, np.clip(predicted, _EDGE, 1 - _EDGE)
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return np.asarray(np.where(np.isfinite(each), np.minimum(each, CAP), CAP))


@dataclass(slots=True)
class RunningRate:
    """The click rate of all earlier chunks, from the configured base rate on."""

    base_rate: float
    clicks: float = 0.0
    events: int = 0

    @property
    def value(self) -> float:
        """The rate that the next chunk is predicted at."""
        prior = _FIRST_WEIGHT * self.base_rate
        return (self.clicks + prior) / (self.events + _FIRST_WEIGHT)

    def add(self, label: Float32s) -> None:
        """Count a chunk."""
        self.clicks += float(label.sum(dtype=np.float64))
        self.events += len(label)


@dataclass(slots=True)
class Divergence:
    """Watches one run; `met`: each criterion that was met, with the chunk where it first was."""

    rate: RunningRate
    met: dict[Criterion, int] = field(default_factory=dict)
    _window: deque[Float64s] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def scored(self, chunk: int, predicted: Float64s, label: Float32s) -> None:
        """Judge a chunk's served predictions, made before it was learned: both [n]."""
        constant = losses(np.full(len(label), self.rate.value), label)
        self._window.append(losses(predicted, label) - constant)
        self.rate.add(label)
        if len(self._window) == WINDOW and is_worse(np.concatenate(self._window)):
            self.met.setdefault("loss", chunk)

    def learned(self, chunk: int, is_finite: bool, probe_scores: Float32s) -> None:
        """Judge the raw state after a chunk was learned."""
        if not is_finite:
            self.met.setdefault("finite", chunk)
        elif not float(np.abs(probe_scores).max(initial=0.0)) <= SCORE_LIMIT:
            self.met.setdefault("scores", chunk)


def is_worse(differences: Float64s) -> bool:
    """Whether paired losses minus the running rate's, [n], are above 0 by three standard errors."""
    error = differences.std() / np.sqrt(len(differences))
    return bool(not differences.mean() <= _ERRORS * error)


@dataclass(frozen=True, slots=True)
class Sum:
    """Σ predicted and Σ market probability over some events, for calibration."""

    predicted: float = 0.0
    probability: float = 0.0

    def plus(self, predicted: Float64s, probability: Float64s) -> Sum:
        """With these events, both [n], added."""
        return Sum(
            self.predicted + float(predicted.sum()), self.probability + float(probability.sum())
        )

    @property
    def calibration(self) -> float | None:
        """Σ predicted / Σ probability; None without an event or with a non-finite prediction."""
        if not self.probability or not np.isfinite(self.predicted):
            return None
        return self.predicted / self.probability
