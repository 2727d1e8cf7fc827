"""Tables in a terminal of 80 columns: what is too long wraps, nothing is cut."""

from __future__ import annotations

import io

from rich.console import Console

from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Report, measure, show
from jobs.lab import ablation, table
from jobs.lab.report import Cell, Difference, Estimate, LabReport, Total

WIDE = Estimate(0.99999, 0.09999)
METHODS = ("none", "decay", "clipping", "projection", "chunk_projection", "dual", "augmented")


def _console() -> tuple[Console, io.StringIO]:
    shown = io.StringIO()
    return Console(width=80, file=shown), shown


def _cell(method: str) -> Cell:
    counts = (500, 500, 0, 0, 500)
    return Cell("curvature", "every_reset", method, "", 1.0, *counts, WIDE, 1e18, WIDE, WIDE, WIDE)


def _lab() -> LabReport:
    """A report of a hundred seeds in which everything diverged."""
    return LabReport(
        machine=describe(),
        settings={},
        seeds=list(range(100)),
        radii=[1.0],
        causes={"every_reset": ""},
        aside=["every_reset"],
        tuned={},
        cells=[_cell(method) for method in METHODS],
        totals=[
            Total("curvature", method, "no ascent", radius, 5_000, 5_000, WIDE, None, WIDE, WIDE)
            for method in METHODS
            for radius in (0.25, None)
        ],
        differences=[Difference("published", m, "no ascent", WIDE, WIDE, 9) for m in METHODS],
        goals=[],
        met=False,
        traces=[],
        seconds=1.0,
    )


def test_the_divergence_lab_fits() -> None:
    """Every count and every figure with its error is there in full."""
    console, shown = _console()
    table.show(_lab(), console)
    text = shown.getvalue()
    assert "…" not in text
    assert text.count("5000/5000") == 2 * len(METHODS)
    assert text.count("999.99 ± 99.99") == 2 * len(METHODS)
    assert max(map(len, text.splitlines())) <= 80


def test_the_ablation_fits() -> None:
    """The longest name of a variant beside an interval."""
    rows = tuple(
        ablation.Row(name, 0.71234, 0.61234, 1.01234, -0.12345, (-0.13, -0.12))
        for name in ablation.VARIANTS
    )
    made = ablation.AblationReport(
        machine=describe(), data="events.csv.gz", label="clicked", seeds=5, events=9, rows=rows
    )
    console, shown = _console()
    ablation.show(made, console)
    text = shown.getvalue()
    assert "…" not in text
    assert text.count("-0.12345 ± 0.00500") == len(rows)


def test_a_benchmark_fits() -> None:
    """A long name wraps between the figures of its row."""
    target = ("ratio at least", 999_999.0)
    name = "a_measure_of_a_name_that_says_much"
    found = measure([999_999.0], "events/s", "", baseline=[888_888.0], target=target)
    console, shown = _console()
    report = Report("bench train", FORMAT, describe(), {"seed": 1}, {name: found})
    show(report, console)
    text = shown.getvalue()
    assert "…" not in text
    assert all(one in text for one in ("999,999", "888,888", "ratio ≥ 999,999", "events/s"))
