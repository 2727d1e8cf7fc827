"""The structure of the lab's JSON report; `schemas/lab.schema.json` describes it."""

from __future__ import annotations

from typing import Literal

import msgspec

from jobs.bench.machine import Machine
from jobs.lab.training import Trace

FORMAT = 1


class Estimate(msgspec.Struct, frozen=True):
    """A mean over seeds with its standard error, which one seed alone does not have."""

    mean: float
    error: float | None


class Cell(msgspec.Struct, frozen=True):
    """One (step rule, cause, method, radius) over all seeds.

    `diverged`: runs that met any criterion; `finite`, `scores` and `loss`: runs that met each.
    `norm_ratio`: the largest raw norm over its radius in any run, null if one was not finite. For
    the rest see `training.Run`; null where no run defines it.
    """

    step: str
    cause: str
    method: str
    variant: str
    radius: float
    runs: int
    diverged: int
    finite: int
    scores: int
    loss: int
    regret: Estimate
    norm_ratio: float | None
    range_share: Estimate | None
    spread_share: Estimate | None
    returning: Estimate | None


class Total(msgspec.Struct, frozen=True):
    """One (step rule, method) over the judged causes; `radius` null: over the whole sweep."""

    step: str
    method: str
    variant: str
    radius: float | None
    runs: int
    diverged: int
    regret: Estimate
    norm_ratio: float | None
    range_share: Estimate | None
    returning: Estimate | None


class Difference(msgspec.Struct, frozen=True):
    """Mean regret of augmented dual ascent minus that of `other`, paired by seed.

    `all_runs`: over the judged causes and the sweep; `survivors`: over the pairs of which neither
    run diverged, null without any.
    """

    step: str
    other: str
    variant: str
    all_runs: Estimate
    survivors: Estimate | None
    pairs: int


class Goal(msgspec.Struct, frozen=True):
    """One line of the goal under one step rule: what was asked, what was found."""

    step: str
    asked: str
    found: str
    met: bool


class Traced(msgspec.Struct, frozen=True):
    """One run of the first seed over its chunks; `present`: whether the travelling ad was shown."""

    step: str
    cause: str
    method: str
    radius: float
    seed: int
    present: list[bool]
    trace: Trace


class LabReport(msgspec.Struct, frozen=True):
    """The divergence lab, as `schemas/lab.schema.json` describes it."""

    machine: Machine
    settings: dict[str, float | int | str | bool]
    seeds: list[int]
    radii: list[float]
    causes: dict[str, str]
    aside: list[str]
    tuned: dict[str, dict[str, dict[str, float]]]
    cells: list[Cell]
    totals: list[Total]
    differences: list[Difference]
    goals: list[Goal]
    met: bool
    traces: list[Traced]
    seconds: float
    kind: Literal["lab divergence"] = "lab divergence"
    format: int = FORMAT
