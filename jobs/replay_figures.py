"""The figures of a replay: pooled, per chunk, over a moving window, and their intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from jobs.replay_report import (
    Baselines,
    ChunkReport,
    Curves,
    Intervals,
    Quality,
    Range,
    ReplayReport,
    Total,
)
from models.cycle import Outcome
from models.features import Schema
from models.metrics import auc, bootstrap, calibration, log_loss, losses
from models.snapshot import Manifest
from models.trainer import TrainerSettings
from models.types import Float32s, Float64s, Int64s

RESAMPLES = 200
RESAMPLED_EVENTS = 20_000_000
CURVE_POINTS = 240

_Figure = Callable[[Float64s, Float64s], float]


class Predictions:
    """Labels and predictions of every chunk so far, in time order.

    Three predictors: the model in service, main effects only, and the running rate, which starts
    from the schema's base rate with the weight of one event.
    """

    def __init__(self, base_rate: float) -> None:
        self._clicks, self._events = base_rate, 1
        self._rows: list[tuple[Int64s, Float64s, Float64s, Float64s, Float64s]] = []

    def add(
        self, time_ms: Int64s, label: Float32s, model: Float64s, main_effects: Float64s
    ) -> None:
        """Add one chunk: arrays [n]."""
        rate = np.full(len(label), self._clicks / self._events)
        wide = np.asarray(label, np.float64)
        self._rows.append((time_ms, wide, model, main_effects, rate))
        self._clicks += float(label.sum(dtype=np.float64))
        self._events += len(label)

    @property
    def latest(self) -> tuple[Float64s, Float64s, Float64s, Float64s]:
        """The last chunk's labels and the three predictions of it."""
        return self._rows[-1][1:]

    def all(self) -> tuple[Int64s, Float64s, Float64s, Float64s, Float64s]:
        """Times, labels and the three predictions of all events."""
        columns = zip(*self._rows, strict=True)
        return tuple(np.concatenate(column) for column in columns)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class About:
    """What was replayed: the log's file name, the label's column, the chunk's length as text."""

    log: str
    label: str
    chunk: str


def chunk_report(
    start_ms: int,
    latest: tuple[Float64s, Float64s, Float64s, Float64s],
    outcome: Outcome,
    served: Manifest,
    seconds: float,
) -> ChunkReport:
    """The report of one chunk: its labels and predictions, the gate's word, what serves now."""
    label, model, main_effects, rate = latest
    manifest = outcome.candidate.manifest
    return ChunkReport(
        start=_text(start_ms),
        events=len(label),
        clicks=int(label.sum()),
        auc=_defined(auc(model, label)),
        log_loss=log_loss(model, label),
        calibration=_defined(calibration(model, label)),
        log_loss_main_effects=log_loss(main_effects, label),
        log_loss_running_rate=log_loss(rate, label),
        max_norm_ratio=served.metrics["largest_ratio"],
        max_raw_norm_ratio=manifest.metrics["largest_raw_ratio"],
        verdict=manifest.verdict.result,
        attempts=len(outcome.attempts),
        reasons=manifest.verdict.reasons,
        seconds=seconds,
        events_per_second=len(label) / seconds,
    )


def summarise(
    about: About,
    schema: Schema,
    settings: TrainerSettings,
    chunks: Sequence[ChunkReport],
    predictions: Predictions,
) -> ReplayReport:
    """The report of a whole replay."""
    times, label, *predicted = predictions.all()
    model, main_effects, rate = (_quality(values, label, schema.model.seed) for values in predicted)
    difference, interval = _paired(*(losses(values, label) for values in predicted[:2]))
    return ReplayReport(
        log=about.log,
        label=about.label,
        chunk=about.chunk,
        schema_hash=schema.hash,
        settings=_settings(schema, settings),
        first_event=_text(int(times[0])),
        last_event=_text(int(times[-1])),
        total=_total(model, chunks),
        baselines=Baselines(main_effects, rate),
        log_loss_minus_main_effects=difference,
        log_loss_minus_main_effects_interval=interval,
        chunks=tuple(chunks),
        curves=_curves(times, label, predicted),
    )


def _quality(predicted: Float64s, label: Float64s, seed: int) -> Quality:
    # Percentiles of a large log's figures need few resamples, and each costs a pass over it.
    resamples = min(RESAMPLES, max(40, RESAMPLED_EVENTS // len(label)))
    with warnings.catch_warnings():
        # Without a click AUC and calibration are undefined in every resample: null below.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        found = bootstrap(predicted, label, seed, resamples)
    ranges = {
        name: (item.low, item.high) if np.isfinite((item.low, item.high)).all() else None
        for name, item in found.items()
    }
    return Quality(
        events=len(label),
        clicks=int(label.sum()),
        auc=_defined(found["auc"].value),
        log_loss=found["log_loss"].value,
        calibration=_defined(found["calibration"].value),
        intervals=Intervals(**ranges),
    )


def _paired(ours: Float64s, theirs: Float64s) -> tuple[float, Range]:
    """The mean difference of two predictors' losses and its 95 % interval, event by event."""
    difference = ours - theirs
    mean = float(difference.mean())
    reach = 1.96 * float(difference.std()) / len(difference) ** 0.5
    return mean, (mean - reach, mean + reach)


def _total(quality: Quality, chunks: Sequence[ChunkReport]) -> Total:
    seconds = sum(chunk.seconds for chunk in chunks)
    verdicts = [chunk.verdict for chunk in chunks]
    return Total(
        **{name: getattr(quality, name) for name in Quality.__struct_fields__},
        max_norm_ratio=_largest([chunk.max_norm_ratio for chunk in chunks]),
        max_raw_norm_ratio=_largest([chunk.max_raw_norm_ratio for chunk in chunks]),
        verdicts={name: verdicts.count(name) for name in ("accepted", "repaired", "refused")},
        seconds=seconds,
        events_per_second=quality.events / seconds,
    )


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _settings(schema: Schema, settings: TrainerSettings) -> dict[str, float | int | str]:
    return {
        "dimensions": schema.dimensions,
        "overlap": schema.model.overlap,
        "alone": schema.model.alone,
        "step": settings.step,
        "step_size": settings.step_size,
        "constraint": settings.constraint,
        "dual_rate": settings.dual_rate,
        "user_radius": settings.user_radius,
        "ad_radius": settings.ad_radius,
        "base_rate": schema.model.base_rate,
        "p_min": schema.model.p_min,
        "p_max": schema.model.p_max,
        "seed": schema.model.seed,
    }


def _curves(times: Int64s, label: Float64s, predicted: Sequence[Float64s]) -> Curves:
    events = len(label)
    window = min(events, max(500, events // 20))
    ends = np.unique(np.linspace(window, events, CURVE_POINTS).astype(int))
    parts = [slice(end - window, end) for end in ends]
    model, main_effects, rate = predicted

    def over(figure: _Figure, values: Float64s) -> list[float | None]:
        return [_defined(figure(values[part], label[part])) for part in parts]

    return Curves(
        window=window,
        time=[_text(int(times[end - 1])) for end in ends],
        auc=over(auc, model),
        auc_main_effects=over(auc, main_effects),
        log_loss=over(log_loss, model),
        log_loss_main_effects=over(log_loss, main_effects),
        log_loss_running_rate=over(log_loss, rate),
        calibration=over(calibration, model),
    )


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
