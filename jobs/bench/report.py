"""The report of a benchmark: JSON (`schemas/bench.schema.json` describes it) and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from jobs.bench.machine import Machine
from jobs.output import write_report

FORMAT = 1
Setting = str | int | float | bool
Judged = Literal["value at least", "value at most", "ratio at least", "ratio at most"]
Target = tuple[Judged, float]
_SIGNS = {
    "value at least": "≥",
    "value at most": "≤",
    "ratio at least": "ratio ≥",
    "ratio at most": "ratio ≤",
}


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: the median of `rounds`, in `unit`.

    `baseline` is what it is compared with, measured in the same run, in the same unit; `ratio` the
    median of value / baseline over rounds that were neighbours in time. `judged` says what of it
    the `target` is about; all of them are null where there is no baseline or no target. `about`
    says what was measured, and against what.
    """

    value: float
    unit: str
    about: str
    rounds: list[float]
    baseline: float | None = None
    ratio: float | None = None
    judged: Judged | None = None
    target: float | None = None
    met: bool | None = None


class Report(msgspec.Struct, frozen=True):
    """All of one benchmark's figures, with what they were measured on and how."""

    kind: Literal[
        "bench train",
        "bench serve",
        "bench memory",
        "bench certificate",
        "bench targeting",
        "bench retrieval",
        "bench ingest",
        "bench import",
        "bench backlog",
        "bench swap",
        "bench pause",
        "bench statistics",
        "bench soak",
    ]
    format: int
    machine: Machine
    settings: dict[str, Setting]
    measurements: dict[str, Measure]


def measure(
    rounds: Sequence[float],
    unit: str,
    about: str,
    *,
    baseline: Sequence[float] | None = None,
    target: Target | None = None,
) -> Measure:
    """The medians of `rounds` and of their ratios to the `baseline` rounds, against the target."""
    value = median(rounds)
    ratio = None if baseline is None else median(map(_ratio, rounds, baseline))
    judged, limit = target or (None, None)
    return Measure(
        value=value,
        unit=unit,
        about=about,
        rounds=[float(one) for one in rounds],
        baseline=None if baseline is None else median(baseline),
        ratio=ratio,
        judged=judged,
        target=limit,
        met=_is_met(judged, limit, value, ratio),
    )


def write(report: Report, path: Path) -> None:
    """Write the report as JSON. Raises `ReportUnwritable`."""
    write_report(path, report)


def show(report: Report, console: Console) -> None:
    """Print the report as a table."""
    machine = report.machine
    title = f"{report.kind}: {machine.processor}, {machine.cores} cores, load {machine.load}"
    table = Table(title=title, box=box.SIMPLE_HEAD, caption=_caption(report), padding=0)
    table.add_column("measure", overflow="fold")  # in a narrow terminal names wrap, figures do not
    for name in ("value", "unit", "baseline", "ratio", "target", "met"):
        justify: Literal["left", "right"] = "left" if name == "unit" else "right"
        table.add_column(name, justify=justify, no_wrap=True, min_width=len(name))
    for name, found in report.measurements.items():
        table.add_row(name, *_cells(found))
    console.print(table)


def _caption(report: Report) -> str:
    return ", ".join(f"{name} {value}" for name, value in report.settings.items())


def _cells(found: Measure) -> tuple[str, ...]:
    target = "" if found.judged is None else f"{_SIGNS[found.judged]} {_figure(found.target)}"
    met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[found.met]
    ratio = "" if found.ratio is None else f"{found.ratio:.3g}"
    shown = (_figure(found.baseline), ratio)
    return (_figure(found.value), found.unit, *shown, target, met)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _ratio(value: float, baseline: float) -> float:
    return value / baseline


def _is_met(
    judged: Judged | None, limit: float | None, value: float, ratio: float | None
) -> bool | None:
    if judged is None or limit is None:
        return None
    judges, side = judged.split(" at ")
    found = value if judges == "value" else ratio
    if found is None:
        return False
    return found >= limit if side == "least" else found <= limit
