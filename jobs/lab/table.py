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
    table = _table(title, ("cause",), [method.replace("_", " ") for method in methods])
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
    title = f"{step}: all causes of the goal, ± standard error over seeds"
    heads = ("radius", "diverged", "regret × 1000", "norm", "range", "returning")
    table = _table(title, ("method",), heads)
    table.caption = "range: used of the certified width; returning: calibration of returning ads"
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
        estimate(total.regret, 1000, 2),
        "not finite" if total.norm_ratio is None else f"{total.norm_ratio:.3g}",
        _mean(total.range_share),
        _mean(total.returning),
    )


def _differences(report: LabReport) -> Table:
    title = "regret × 1000 of augmented minus other, paired by seed; minus: augmented is better"
    table = _table(title, ("step", "other"), ("all runs", "where neither diverged"))
    for one in report.differences:
        other = one.other.replace("_", " ") + (f", {one.variant}" if one.variant else "")
        cells = estimate(one.all_runs, 1000, 3), estimate(one.survivors, 1000, 3)
        table.add_row(one.step, other, *cells)
    return table


def estimate(value: Estimate | None, factor: float, digits: int) -> str:
    """A mean and its standard error, multiplied; a dash where there is none."""
    if value is None:
        return "–"
    error = "" if value.error is None else f" ± {factor * value.error:.{digits}f}"
    return f"{factor * value.mean:.{digits}f}{error}"


def _mean(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.mean:.3f}"


def _table(title: str, texts: Sequence[str], figures: Sequence[str]) -> Table:
    """Columns of text, then of figures; in a narrow terminal texts wrap and figures are not cut."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0)
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in figures:
        longest = max(map(len, name.split()))
        table.add_column(name, justify="right", overflow="fold", min_width=longest)
    return table


def show_tried(tried: Sequence[Tried], console: Console) -> None:
    """Every setting that the tuning tried, best first, and whether the best is the constant."""
    names = ("step", "method", "setting")
    table = _table("tuning: mean regret × 1000", names, ("regret", "diverged"))
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
