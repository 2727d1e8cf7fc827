"""The structure of a replay's JSON report; `schemas/replay.schema.json` describes it."""

from __future__ import annotations

from typing import Literal

import msgspec

FORMAT = 1
Range = tuple[float, float]


class Intervals(msgspec.Struct, frozen=True):
    """95 % bootstrap intervals over events; null where the figure is not defined."""

    auc: Range | None
    log_loss: Range | None
    calibration: Range | None


class Quality(msgspec.Struct, frozen=True):
    """How well some predictions met all events of the log, pooled in time order.

    `calibration` is Σ predicted / Σ observed; null without a click, `auc` with one class only.
    """

    events: int
    clicks: int
    auc: float | None
    log_loss: float
    calibration: float | None
    intervals: Intervals


class Baselines(msgspec.Struct, frozen=True):
    """The same trainer without interactions, and the click rate of all earlier chunks."""

    main_effects: Quality
    running_rate: Quality


class ChunkReport(msgspec.Struct, frozen=True):
    """One chunk, scored by the incumbent before it was learned, then learned.

    `max_norm_ratio` is the largest norm over its radius of what serves after the chunk,
    `max_raw_norm_ratio` the same of the trainer's raw state; `attempts` is 2 when the first
    candidate was refused. With the verdict `refused` the chunk was skipped.
    """

    start: str
    events: int
    clicks: int
    auc: float | None
    log_loss: float
    calibration: float | None
    log_loss_main_effects: float
    log_loss_running_rate: float
    max_norm_ratio: float | None
    max_raw_norm_ratio: float | None
    verdict: Literal["accepted", "repaired", "refused"]
    attempts: int
    reasons: tuple[str, ...]
    seconds: float
    events_per_second: float


class Curves(msgspec.Struct, frozen=True):
    """Figures over a trailing window of `window` events, for plotting."""

    window: int
    time: list[str]
    auc: list[float | None]
    auc_main_effects: list[float | None]
    log_loss: list[float | None]
    log_loss_main_effects: list[float | None]
    log_loss_running_rate: list[float | None]
    calibration: list[float | None]


class Total(Quality, frozen=True):
    """The quality over the whole log, with the extremes and counts over its chunks."""

    max_norm_ratio: float | None
    max_raw_norm_ratio: float | None
    verdicts: dict[str, int]
    seconds: float
    events_per_second: float


class ReplayReport(msgspec.Struct, frozen=True):
    """A replay, as `schemas/replay.schema.json` describes it."""

    log: str
    label: str
    chunk: str
    schema_hash: str
    settings: dict[str, float | int | str]
    first_event: str
    last_event: str
    total: Total
    baselines: Baselines
    log_loss_minus_main_effects: float
    log_loss_minus_main_effects_interval: Range
    chunks: tuple[ChunkReport, ...]
    curves: Curves
    kind: Literal["replay"] = "replay"
    format: int = FORMAT
