"""A replay's report, put together: per chunk on the way, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.replay.curves import Windows, curves
from jobs.replay.frozen import frozen_reports
from jobs.replay.groups import by_age, by_bid
from jobs.replay.instant import written
from jobs.replay.predictions import Scored
from jobs.replay.quality import defined, measured, paired
from jobs.replay.report import Baselines, ChunkReport, Quality, ReplayReport, Total
from models.cycle import Outcome
from models.features import Schema
from models.metrics import auc, calibration, log_loss
from models.snapshot import Manifest
from models.trainer import TrainerSettings
from models.types import Float64s


@dataclass(frozen=True, slots=True)
class About:
    """What was replayed: the log's file name, the label's column, the chunk's length as text.

    `bids`: float64 [n], NaN where an event has none; None when the log has no such column.
    """

    log: str
    label: str
    chunk: str
    bids: Float64s | None


def chunk_report(
    start_ms: int, scored: Scored, outcome: Outcome, served: Manifest, seconds: float
) -> ChunkReport:
    """The report of one chunk: its events, the gate's word, what serves now."""
    label, manifest = scored.label, outcome.candidate.manifest
    return ChunkReport(
        start=written(start_ms),
        events=len(label),
        clicks=int(label.sum()),
        auc=defined(auc(scored.model, label)),
        log_loss=log_loss(scored.model, label),
        calibration=defined(calibration(scored.model, label)),
        log_loss_main_effects=log_loss(scored.main_effects, label),
        log_loss_running_rate=log_loss(scored.running_rate, label),
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
    scored: Scored,
) -> ReplayReport:
    """The report of a whole replay."""
    label, seed, windows = scored.label, schema.model.seed, Windows.over(len(scored))
    difference, interval = paired(scored.model, scored.main_effects, label)
    return ReplayReport(
        log=about.log,
        label=about.label,
        chunk=about.chunk,
        schema_hash=schema.hash,
        settings=_settings(schema, settings),
        first_event=written(int(scored.time_ms[0])),
        last_event=written(int(scored.time_ms[-1])),
        total=_total(measured(scored.model, label, seed), chunks),
        baselines=Baselines(
            main_effects=measured(scored.main_effects, label, seed),
            running_rate=measured(scored.running_rate, label, seed),
        ),
        log_loss_minus_main_effects=difference,
        log_loss_minus_main_effects_interval=interval,
        by_age=by_age(scored, seed),
        by_bid=None if about.bids is None else by_bid(scored, about.bids, seed),
        frozen=frozen_reports(scored, windows, seed),
        chunks=tuple(chunks),
        curves=curves(scored, windows),
    )


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
