"""Every event of a replay with what each predictor said of it, in time order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.types import Batch, Float64s, Int64s


@dataclass(frozen=True, slots=True)
class Scored:
    """n events, each predicted before it was learned; in time order.

    `time_ms`, `ad_id`: int64 [n]; `label`: float64 [n], 0 or 1. The predictions are float64 [n]:
    of the model in service, of main effects only, of the click rate of all earlier chunks, and of
    each model that was frozen on the way, NaN until then.
    """

    time_ms: Int64s
    ad_id: Int64s
    label: Float64s
    model: Float64s
    main_effects: Float64s
    running_rate: Float64s
    frozen: tuple[Float64s, ...]

    def __len__(self) -> int:
        return len(self.label)


class Predictions:
    """Collects the events of every chunk; the running rate starts as one event at `base_rate`."""

    def __init__(self, base_rate: float) -> None:
        self._clicks, self._events = base_rate, 1
        self._chunks: list[Scored] = []

    def add(
        self,
        batch: Batch,
        model: Float64s,
        main_effects: Float64s,
        frozen: Sequence[Float64s] = (),
    ) -> None:
        """Add one chunk: arrays [n]."""
        label = np.asarray(batch.label, np.float64)
        rate = np.full(len(label), self._clicks / self._events)
        predicted = model, main_effects, rate, tuple(frozen)
        self._chunks.append(Scored(batch.time_ms, batch.ad_id, label, *predicted))
        self._clicks += float(label.sum())
        self._events += len(label)

    @property
    def latest(self) -> Scored:
        """The last chunk."""
        return self._chunks[-1]

    def all(self) -> Scored:
        """All chunks as one."""
        chunks = self._chunks
        frozen = zip(*(chunk.frozen for chunk in chunks), strict=True)
        return Scored(
            time_ms=np.concatenate([chunk.time_ms for chunk in chunks]),
            ad_id=np.concatenate([chunk.ad_id for chunk in chunks]),
            label=np.concatenate([chunk.label for chunk in chunks]),
            model=np.concatenate([chunk.model for chunk in chunks]),
            main_effects=np.concatenate([chunk.main_effects for chunk in chunks]),
            running_rate=np.concatenate([chunk.running_rate for chunk in chunks]),
            frozen=tuple(np.concatenate(column) for column in frozen),
        )
