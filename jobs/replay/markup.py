"""The pieces of a replay's page: its style, sections, tables of quality and figures as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.replay.chart import figure
from jobs.replay.report import Quality

STYLE = """
:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#1d2330;--soft:#5d6675;
--line:#e4e2dc;--a:#0b6bcb;--b:#c2410c;--c:#6b7280;--d:#a21caf;--e:#a67c00;--accepted:#2f9e5b;--repaired:#d99a00;
--refused:#d1343f}
@media (prefers-color-scheme:dark){:root{--page:#12151b;--card:#1a1f28;--ink:#e8ebf0;
--soft:#9aa4b2;--line:#2c3440;--a:#5aa9f5;--b:#f08a4b;--c:#8d97a5;
--d:#e879f9;--e:#e6b23c;--accepted:#4cc27d;
--repaired:#e6b23c;--refused:#f0616b}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.25rem 1rem 3rem;max-width:62rem;background:var(--page);
color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:.25rem 0}h2{font-size:1.05rem;margin:0 0 .15rem}
p{margin:.25rem 0 .75rem;color:var(--soft)}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:1rem;margin:1rem 0}
.scroll{overflow-x:auto}figure+.scroll{margin-top:1rem}
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
.band{fill:var(--accepted);opacity:.14}
.whisker{stroke-width:2}
.group th,.group th:first-child{text-align:left;color:var(--ink);white-space:normal;
padding-top:.9rem}
.group small{font-weight:400}
.holds{color:var(--accepted)}.fails{color:var(--refused)}
.series{fill:none;stroke-width:2;stroke-linejoin:round}
@media (max-width:40rem){svg text{font-size:22px}.series{stroke-width:3}
table{font-size:.9rem}th,td{padding:.35rem .15rem}td:first-child{white-space:normal}
small{font-size:.68rem}}
"""

Row = tuple[str, Quality]


def section(title: str, note: str, content: str) -> str:
    """A card of the page; `note` and `content` are markup."""
    return f"<section><h2>{title}</h2><p>{note}</p>{content}</section>"


def table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """A table under one head a column; `rows`: markup."""
    cells = "".join(f"<th>{head}</th>" for head in heads)
    return (
        f"<div class=scroll><table><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def quality_table(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Rows of quality under the heading of their group, markup; an empty one is left out."""
    rows = [
        row
        for heading, members in groups
        for row in (
            f"<tr class=group><th colspan=4>{heading}</th></tr>" if heading else "",
            *(quality_row(name, quality) for name, quality in members),
        )
    ]
    return table(("", "AUC", "Log loss", "Calibration"), rows)


def quality_row(name: str, quality: Quality) -> str:
    """A table row: each figure with its interval below it."""
    cells = "".join(
        f"<td>{figure(value, digits)}{flag}<small>{interval(reach)}</small></td>"
        for value, reach, digits, flag in (
            (quality.auc, quality.intervals.auc, 4, ""),
            (quality.log_loss, quality.intervals.log_loss, 4, ""),
            (quality.calibration, quality.intervals.calibration, 3, held(quality)),
        )
    )
    return f"<tr><td>{escape(name)}</td>{cells}</tr>"


def held(quality: Quality) -> str:
    """A tick where the calibration holds, a cross where it does not; nothing without a click."""
    if quality.calibration_holds is None:
        return ""
    if quality.calibration_holds:
        return ' <span class=holds role="img" aria-label="holds">✓</span>'
    return ' <span class=fails role="img" aria-label="does not hold">✗</span>'


def counts(quality: Quality) -> str:
    """How many events and positive labels, in words."""
    return f"{quality.events:,} events, {quality.clicks:,} positive"


def interval(reach: tuple[float, float] | None) -> str:
    """Both bounds, or nothing."""
    return "" if reach is None else f"{reach[0]:.3f}–{reach[1]:.3f}"


def difference(value: float, reach: tuple[float, float] | None) -> str:
    """A signed difference of log losses with its interval."""
    bounds = "" if reach is None else f" ({reach[0]:+.5f} to {reach[1]:+.5f})"
    return f"{value:+.5f}{bounds}".replace("-", "−")
