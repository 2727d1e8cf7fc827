"""A replay report as tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from jobs.replay.report import Age, ChunkReport, Quality, ReplayReport

ROWS = 24
"""Most chunks shown; of more, every N-th."""

_AGES: dict[Age, str] = {
    "first_100_impressions": "first 100 impressions",
    "first_day": "first day",
    "older": "older",
}


def tables(report: ReplayReport) -> tuple[Table, Table]:
    """Chunks first, totals last: the end of the output is what stays on the screen."""
    return _chunks(report), _totals(report)


def _chunks(report: ReplayReport) -> Table:
    every = -(-len(report.chunks) // ROWS)
    title = f"{len(report.chunks)} chunks of {report.chunk}"
    caption = "rate's: log loss of the running rate; norm: the trainer's largest over its radius"
    table = Table(
        title=title + (f", one in {every} shown" if every > 1 else ""),
        caption=caption,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("chunk", no_wrap=True)
    for name in ("events", "log loss", "rate's", "AUC", "calibration", "norm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for chunk in report.chunks[::every]:
        table.add_row(*_chunk_cells(chunk))
    return table


def _chunk_cells(chunk: ChunkReport) -> tuple[str, ...]:
    return (
        chunk.start[5:16].replace("T", " "),
        f"{chunk.events:,}",
        f"{chunk.log_loss:.4f}",
        f"{chunk.log_loss_running_rate:.4f}",
        _figure(chunk.auc, 3),
        _figure(chunk.calibration, 2),
        _figure(chunk.max_raw_norm_ratio, 3),
        chunk.verdict + (" (2)" if chunk.attempts > 1 else ""),
    )


def _totals(report: ReplayReport) -> Table:
    total = report.total
    verdicts = ", ".join(f"{count} {name}" for name, count in total.verdicts.items())
    low, high = report.log_loss_minus_main_effects_interval
    table = Table(
        title=f"{report.log}, {report.label}: {total.events:,} events, {total.clicks:,} positive",
        caption=(
            f"± half a 95 % bootstrap interval. Log loss minus main effects only: "
            f"{report.log_loss_minus_main_effects:+.4f} ({low:+.4f} to {high:+.4f}).\n"
            f"Verdicts: {verdicts}. Largest norm ratio: {_figure(total.max_norm_ratio, 3)} served, "
            f"{_figure(total.max_raw_norm_ratio, 3)} raw. "
            f"{total.events_per_second:,.0f} events/s.\n{_by_age(report)}{_frozen(report)}"
        ),
        box=box.SIMPLE_HEAD,
    )
    for name in ("", "AUC", "log loss", "calibration"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_row("model", *_quality_cells(total))
    table.add_row("main effects only", *_quality_cells(report.baselines.main_effects))
    table.add_row("running rate", *_quality_cells(report.baselines.running_rate))
    return table


def _by_age(report: ReplayReport) -> str:
    order = ", ".join(
        f"{_AGES[group.age]} {_figure(group.model.auc, 3)}" for group in report.by_age
    )
    judged = [group.model for group in report.by_age]
    judged += [group.model for group in report.by_bid or ()]
    held = [item.calibration_holds for item in judged if item.calibration_holds is not None]
    where = "ages" if report.by_bid is None else "ages and tenths of bids"
    return f"AUC by ad's age: {order}.\nCalibration holds in {sum(held)} of {len(held)} {where}."


def _frozen(report: ReplayReport) -> str:
    lost = ", ".join(
        f"{item.log_loss_minus_updated:+.4f} after {100 * item.share:.0f} %"
        for item in report.frozen
    )
    return f"\nLog loss, frozen minus updated: {lost}." if lost else ""


def _quality_cells(quality: Quality) -> tuple[str, ...]:
    intervals = quality.intervals
    return (
        _with_interval(quality.auc, intervals.auc),
        _with_interval(quality.log_loss, intervals.log_loss),
        _with_interval(quality.calibration, intervals.calibration),
    )


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None or interval is None:
        return _figure(value, 4)
    return f"{value:.4f} ± {(interval[1] - interval[0]) / 2:.4f}"


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
