"""The structure of a replay's JSON report; `schemas/replay.schema.json` describes it."""

from __future__ import annotations

from typing import Literal

import msgspec

FORMAT = 1
Range = tuple[float, float]
Age = Literal["first_100_impressions", "first_day", "older"]


class Intervals(msgspec.Struct, frozen=True):
    """95 % bootstrap intervals over events; null with few clicks or few other events."""

    auc: Range | None
    log_loss: Range | None
    calibration: Range | None


class Quality(msgspec.Struct, frozen=True):
    """How well some predictions met some events.

    `calibration` is Σ predicted / Σ observed; null without a click, `auc` with one class only.
    `calibration_error` is its standard error if the predictions are right, √Σp(1−p) / Σp, and
    `calibration_holds` says whether it is within 0.97–1.03 or two of them from 1.
    """

    events: int
    clicks: int
    predicted_clicks: float
    auc: float | None
    log_loss: float
    calibration: float | None
    calibration_error: float
    calibration_holds: bool | None
    intervals: Intervals


class Baselines(msgspec.Struct, frozen=True):
    """The same trainer without interactions, and the click rate of all earlier chunks."""

    main_effects: Quality
    running_rate: Quality


class AgeGroup(msgspec.Struct, frozen=True):
    """The impressions of ads of one age, counted from an ad's first impression in the log.

    An ad is older when it has had its first 100 impressions and is a day old or more.
    """

    age: Age
    model: Quality
    main_effects: Quality
    log_loss_minus_main_effects: float
    log_loss_minus_main_effects_interval: Range | None


class BidGroup(msgspec.Struct, frozen=True):
    """The impressions of about a tenth of the log, by bid; both bounds belong to it."""

    low_micros: int
    high_micros: int
    model: Quality


class Frozen(msgspec.Struct, frozen=True):
    """The model that served after a share of the log's time, not updated since.

    All but the curves is over the events from `since` on. `auc` and `log_loss` have a value for
    each time of the report's curves, null until a whole window lies after the freeze.
    """

    share: float
    since: str
    model: Quality
    updated: Quality
    log_loss_minus_updated: float
    log_loss_minus_updated_interval: Range | None
    auc: list[float | None]
    log_loss: list[float | None]


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
    """A replay, as `schemas/replay.schema.json` describes it.

    `by_bid` is null for a log without bids; `frozen` lacks what was frozen before no event.
    """

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
    by_age: tuple[AgeGroup, ...]
    by_bid: tuple[BidGroup, ...] | None
    frozen: tuple[Frozen, ...]
    chunks: tuple[ChunkReport, ...]
    curves: Curves
    kind: Literal["replay"] = "replay"
    format: int = FORMAT
