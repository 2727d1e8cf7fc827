"""A replay report as one self-contained HTML page: our own SVG, no script, no outside asset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from jobs.replay_report import ChunkReport, Quality, ReplayReport

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 30
_STYLE = """
:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#1d2330;--soft:#5d6675;
--line:#e4e2dc;--a:#0b6bcb;--b:#c2410c;--c:#6b7280;--accepted:#2f9e5b;--repaired:#d99a00;
--refused:#d1343f}
@media (prefers-color-scheme:dark){:root{--page:#12151b;--card:#1a1f28;--ink:#e8ebf0;
--soft:#9aa4b2;--line:#2c3440;--a:#5aa9f5;--b:#f08a4b;--c:#8d97a5;--accepted:#4cc27d;
--repaired:#e6b23c;--refused:#f0616b}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.25rem 1rem 3rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:.25rem 0}h2{font-size:1.05rem;margin:0 0 .15rem}
p{margin:.25rem 0 .75rem;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1rem;margin:1rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.35rem .5rem;border-bottom:1px solid var(--line);
white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--soft);font-size:.85rem}
small{color:var(--soft);display:block;font-size:.78rem}
figure{margin:0}figcaption{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.85rem;
color:var(--soft);margin-bottom:.35rem}
.key::before{content:"";display:inline-block;width:1.1rem;height:.2rem;border-radius:.1rem;
margin-right:.4rem;vertical-align:middle;background:currentColor}
.key span{color:var(--soft)}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font-size:12px}
.grid{stroke:var(--line);stroke-width:1}
.mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:4 4;opacity:.6}
.series{fill:none;stroke-width:2;stroke-linejoin:round}
@media (max-width:40rem){svg text{font-size:22px}.series{stroke-width:3}
table{font-size:.9rem}th,td{padding:.35rem .15rem}td:first-child{white-space:normal}
small{font-size:.68rem}}
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a colour variable, a name, and a value (or a gap) at each time."""

    colour: str
    name: str
    values: Sequence[float | None]


def page(report: ReplayReport) -> str:
    """The whole HTML page of a replay."""
    title = f"Replay of {escape(report.log)}, label {escape(report.label)}"
    sections = (_totals(report), *_curves(report), _norms(report), _verdicts(report))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1><p>{_summary(report)}</p>{''.join(sections)}</body></html>\n"
    )


def _summary(report: ReplayReport) -> str:
    total = report.total
    return (
        f"{total.events:,} impressions with {total.clicks:,} positive labels from "
        f"{_day(report.first_event)} to {_day(report.last_event)}, in {len(report.chunks):,} "
        f"chunks of {escape(report.chunk)}. Each chunk was scored by the model in service before "
        f"it was learned. {total.events_per_second:,.0f} events/s."
    )


def _totals(report: ReplayReport) -> str:
    rows = (
        ("Model", report.total),
        ("Main effects only", report.baselines.main_effects),
        ("Running rate", report.baselines.running_rate),
    )
    body = "".join(_total_row(name, quality) for name, quality in rows)
    low, high = report.log_loss_minus_main_effects_interval
    note = (
        f"Log loss of the model minus main effects only: "
        f"{report.log_loss_minus_main_effects:+.4f} ({low:+.4f} to {high:+.4f})."
    )
    return (
        "<section><h2>All events</h2><p>With 95 % bootstrap intervals. Calibration is Σ predicted "
        "/ Σ observed.</p><div class=scroll><table><thead><tr><th></th><th>AUC</th>"
        f"<th>Log loss</th><th>Calibration</th></tr></thead><tbody>{body}</tbody></table></div>"
        f"<p>{note}</p></section>"
    )


def _total_row(name: str, quality: Quality) -> str:
    cells = "".join(
        f"<td>{_figure(value, digits)}<small>{_interval(interval)}</small></td>"
        for value, interval, digits in (
            (quality.auc, quality.intervals.auc, 4),
            (quality.log_loss, quality.intervals.log_loss, 4),
            (quality.calibration, quality.intervals.calibration, 3),
        )
    )
    return f"<tr><td>{name}</td>{cells}</tr>"


def _curves(report: ReplayReport) -> tuple[str, str, str]:
    curves = report.curves
    times = [_seconds(time) for time in curves.time]
    window = f"Over a trailing window of {curves.window:,} events."
    model, plain = ("a", "model"), ("b", "main effects only")
    loss = chart(
        times,
        (
            Series("c", "running rate", curves.log_loss_running_rate),
            Series(*plain, curves.log_loss_main_effects),
            Series(*model, curves.log_loss),
        ),
    )
    order = chart(
        times,
        (Series(*plain, curves.auc_main_effects), Series(*model, curves.auc)),
        mark=0.5,
    )
    fit = chart(times, (Series(*model, curves.calibration),), mark=1.0)
    return (
        _section("Log loss", f"{window} Lower is better.", loss),
        _section("AUC", f"{window} 0.5 is chance, 1 is a perfect order.", order),
        _section("Calibration", f"{window} Σ predicted / Σ observed; 1 is right.", fit),
    )


def _norms(report: ReplayReport) -> str:
    times = [_seconds(chunk.start) for chunk in report.chunks]
    raw = [chunk.max_raw_norm_ratio for chunk in report.chunks]
    served = [chunk.max_norm_ratio for chunk in report.chunks]
    drawn = chart(
        times, (Series("b", "trainer's raw state", raw), Series("a", "served", served)), 1
    )
    note = "Largest norm of a latent vector over its radius. What serves never exceeds 1."
    return _section("Norms against their radii", note, drawn)


def _verdicts(report: ReplayReport) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in report.total.verdicts.items())
    times = [_seconds(chunk.start) for chunk in report.chunks]
    across = _Scale(times[0], times[-1], _LEFT, _WIDTH - _RIGHT)
    width = max(1.5, min(14.0, 0.8 * (_WIDTH - _LEFT - _RIGHT) / len(times)))
    ticks = "".join(
        _tick(chunk, across(time), width) for chunk, time in zip(report.chunks, times, strict=True)
    )
    keys = "".join(
        f'<span class=key style="color:var(--{name})"><span>{name}</span></span>'
        for name in ("accepted", "repaired", "refused")
    )
    drawn = (
        f"<figure><figcaption>{keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} 64" role="img" aria-label="{escape(counts)}">'
        f"{ticks}{_dates(across, 58)}</svg></figure>"
    )
    return _section("The gate's verdicts", f"{counts}. A refused chunk is skipped.", drawn)


def _tick(chunk: ChunkReport, x: float, width: float) -> str:
    why = "; ".join((f"{chunk.start} {chunk.verdict}", *chunk.reasons))
    return (
        f'<rect x="{x - width / 2:.1f}" y="4" width="{width:.1f}" height="34" '
        f'fill="var(--{chunk.verdict})"><title>{escape(why)}</title></rect>'
    )


def _section(title: str, note: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{note}</p>{content}</section>"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps [low, high] to [start, stop] in the drawing, linearly."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.stop - self.start)


def chart(times: Sequence[float], series: Sequence[Series], mark: float | None = None) -> str:
    """A line chart over `times` (epoch seconds), with a dashed line at `mark`."""
    shown = [value for item in series for value in item.values if value is not None]
    if not shown:
        return "<p>Nothing to draw: the figure is not defined on this log.</p>"
    low, high = _bounds(shown, mark)
    across = _Scale(times[0], times[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    names = ", ".join(item.name for item in series)
    keys = "".join(
        f'<span class=key style="color:var(--{item.colour})"><span>{item.name} '
        f"{_figure(_last(item.values), 3)}</span></span>"
        for item in reversed(series)
    )
    marked = "" if mark is None else _rule("mark", up(mark))
    lines = "".join(_line(times, item, across, up) for item in series)
    return (
        f"<figure><figcaption>{keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(names)}">'
        f"{_grid(up)}{_dates(across, _HEIGHT - 6)}{marked}{lines}</svg></figure>"
    )


def _bounds(shown: Sequence[float], mark: float | None) -> tuple[float, float]:
    # The first points stand on few events and may be wild: the middle 98 % set the scale.
    ordered = sorted(shown)
    cut = len(ordered) // 100
    low, high = ordered[cut], ordered[-1 - cut]
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def _line(times: Sequence[float], item: Series, across: _Scale, up: _Scale) -> str:
    path, pen = [], "M"
    for time, value in zip(times, item.values, strict=True):
        if value is None:
            pen = "M"
            continue
        y = min(max(up(value), _TOP), _HEIGHT - _BOTTOM)
        path.append(f"{pen}{across(time):.1f} {y:.1f}")
        pen = "L"
    if len(path) == 1:
        path.append("h2")
    return (
        f'<path class="series" d="{"".join(path)}" stroke="var(--{item.colour})">'
        f"<title>{item.name}</title></path>"
    )


def _grid(up: _Scale) -> str:
    step = _round_step((up.high - up.low) / 4)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(up.low / step)
    parts = []
    for i in range(first, math.floor(up.high / step) + 1):
        y = up(i * step)
        parts.append(_rule("grid", y))
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{i * step:.{digits}f}</text>'
        )
    return "".join(parts)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _rule(kind: str, y: float) -> str:
    return f'<path class="{kind}" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'


def _dates(across: _Scale, y: float) -> str:
    places = (
        (across.low, "start"),
        ((across.low + across.high) / 2, "middle"),
        (across.high, "end"),
    )
    hours = across.high - across.low < 3 * 86_400
    form = "%d %b %H:%M" if hours else "%d %b %Y"
    return "".join(
        f'<text x="{across(time):.0f}" y="{y}" text-anchor="{anchor}">'
        f"{datetime.fromtimestamp(time, UTC).strftime(form)}</text>"
        for time, anchor in places
    )


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _day(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%d %b %Y %H:%M")


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"
