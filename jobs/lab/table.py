"""The lab's figures for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from jobs.lab.methods import ABOUT, TUNED, Name
from jobs.lab.report import Cell, Estimate, LabReport, Total
from jobs.lab.tuning import Tried, best


def show(report: LabReport, console: Console) -> None:
    """For each step rule who diverged where and what it cost; the last line says met or not met."""
    for step in dict.fromkeys(cell.step for cell in report.cells):
        console.print(_divergence(report, step))
        console.print(_totals(report, step))
    console.print(_differences(report))
    for goal in report.goals:
        sign = "[green]met[/]" if goal.met else "[red]not met[/]"
        console.print(f"{goal.step}: {goal.asked}: {sign}. {goal.found}", soft_wrap=True)
    console.print("[green]the goal is met[/]" if report.met else "[red]the goal is not met[/]")


def _divergence(report: LabReport, step: str) -> Table:
    """Diverging runs of each cause and method, all radii together."""
    kept = [cell for cell in report.cells if cell.step == step and not cell.variant]
    methods = list(dict.fromkeys(cell.method for cell in kept))
    title = f"{step}: diverging runs, all radii"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("cause", no_wrap=True)
    for method in methods:
        table.add_column(method.replace("_", " "), justify="right")
    for cause in report.causes:
        cells = [_count(kept, cause, method) for method in methods]
        table.add_row(cause + (" *" if cause in report.aside else ""), *cells)
    if report.aside:
        table.caption = "* not part of the goal: see the page"
    return table


def _count(cells: Sequence[Cell], cause: str, method: str) -> str:
    found = [cell for cell in cells if (cell.cause, cell.method) == (cause, method)]
    diverged, runs = sum(cell.diverged for cell in found), sum(cell.runs for cell in found)
    if not runs:
        return "–"
    return f"{diverged}/{runs}" if diverged else f"[dim]0/{runs}[/]"


def _totals(report: LabReport, step: str) -> Table:
    table = Table(
        title=f"{step}: all causes of the goal, ± standard error over seeds",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for name in ("radius", "diverged", "regret × 1000", "norm", "range used", "returning"):
        table.add_column(name, justify="right", no_wrap=True)
    for total in report.totals:
        if total.step == step:
            table.add_row(*_total_cells(total))
    return table


def _total_cells(total: Total) -> tuple[str, ...]:
    name = total.method.replace("_", " ") + (f", {total.variant}" if total.variant else "")
    has_radius = total.method not in ("none", "decay", "clipping")
    return (
        name,
        ("sweep" if total.radius is None else f"{total.radius:g}") if has_radius else "",
        f"{total.diverged}/{total.runs}",
        figure(total.regret, 1000, 2),
        "not finite" if total.norm_ratio is None else f"{total.norm_ratio:.3g}",
        figure(total.range_share, 1, 3),
        figure(total.returning, 1, 3),
    )


def _differences(report: LabReport) -> Table:
    table = Table(
        title="regret × 1000 of augmented minus other, paired by seed; minus: augmented is better",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("step", "other"):
        table.add_column(name, no_wrap=True)
    for name in ("all runs", "where neither diverged"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report.differences:
        other = one.other.replace("_", " ") + (f", {one.variant}" if one.variant else "")
        cells = figure(one.all_runs, 1000, 3), figure(one.survivors, 1000, 3)
        table.add_row(one.step, other, *cells)
    return table


def figure(value: Estimate | None, factor: float, digits: int) -> str:
    """A mean and its standard error, multiplied; a dash where there is none."""
    if value is None:
        return "–"
    error = "" if value.error is None else f" ± {factor * value.error:.{digits}f}"
    return f"{factor * value.mean:.{digits}f}{error}"


def show_tried(tried: Sequence[Tried], console: Console) -> None:
    """Every setting that the tuning tried, best first, and whether the best is the constant."""
    table = Table(title="tuning: mean regret × 1000", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("step", "method", "setting", "regret", "diverged"):
        table.add_column(name, no_wrap=True)
    for one in tried:
        setting = ", ".join(f"{name} {value:g}" for name, value in one.setting.items())
        cells = (one.step, one.method, setting, f"{1000 * one.regret:.2f}", f"{one.diverged:.0%}")
        table.add_row(*cells)
    console.print(table)
    for step, methods in best(list(tried)).items():
        for method, chosen in methods.items():
            console.print(f"{step}, {ABOUT[method]}: {chosen}{_compared(step, method, chosen)}")


def _compared(step: str, method: Name, chosen: dict[str, float]) -> str:
    held = next((found.get(method) for rule, found in TUNED.items() if rule == step), None)
    return "" if chosen == held else f" (methods.TUNED holds {held})"
