"""Models that stop learning part of the way through a replay, to show what updating is worth."""

from __future__ import annotations

import numpy as np

from jobs.replay.curves import Windows
from jobs.replay.instant import written
from jobs.replay.predictions import Scored
from jobs.replay.quality import has_enough, measured, paired
from jobs.replay.report import Frozen
from models.offset import Model, sigmoid
from models.types import Batch, Float64s

SHARES = (0.2, 0.5)
"""How much of the log's time each frozen model has learned from."""


class FrozenModels:
    """The models in service when each share of the log's time had passed; they only score.

    `first_ms`, `last_ms`: the times of the log's first and last event.
    """

    def __init__(self, first_ms: int, last_ms: int) -> None:
        self._due_ms = [first_ms + share * (last_ms - first_ms) for share in SHARES]
        self._models: list[Model | None] = [None] * len(SHARES)

    def freeze(self, now_ms: int, served: Model) -> None:
        """Take `served`, which serves from `now_ms` on, for each share that has passed by then."""
        for i, due_ms in enumerate(self._due_ms):
            if self._models[i] is None and now_ms >= due_ms:
                self._models[i] = served

    def predict(self, batch: Batch) -> tuple[Float64s, ...]:
        """Each frozen model's pCTR of the batch's events: float64 [n], NaN before its freeze."""
        return tuple(
            np.full(len(batch), np.nan)
            if model is None
            else sigmoid(model.score(batch.user, batch.ad))
            for model in self._models
        )


def frozen_reports(scored: Scored, windows: Windows, seed: int) -> tuple[Frozen, ...]:
    """Each frozen model against the updated one on the events after its freeze.

    A share that had not passed before the last chunk has no such events and is left out.
    """
    pairs = zip(SHARES, scored.frozen, strict=True)
    return tuple(
        _report(share, predicted, scored, windows, seed)
        for share, predicted in pairs
        if np.isfinite(predicted[-1])
    )


def _report(
    share: float, predicted: Float64s, scored: Scored, windows: Windows, seed: int
) -> Frozen:
    first = int(np.isfinite(predicted).argmax())
    label, theirs, ours = scored.label[first:], predicted[first:], scored.model[first:]
    difference, interval = paired(theirs, ours, label)
    after = windows.since(first)
    skipped = [None] * (len(windows) - len(after))
    return Frozen(
        share=share,
        since=written(int(scored.time_ms[first])),
        model=measured(theirs, label, seed),
        updated=measured(ours, label, seed),
        log_loss_minus_updated=difference,
        log_loss_minus_updated_interval=interval if has_enough(label) else None,
        auc=[*skipped, *after.auc(theirs, label)],
        log_loss=[*skipped, *after.log_loss(theirs, label)],
    )
