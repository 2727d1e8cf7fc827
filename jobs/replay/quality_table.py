"""Tables of quality for a replay's page, and what they say in words."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.pages.markup import figure, row, table
from jobs.replay.report import Quality, Range

Row = tuple[str, Quality]


def quality_table(groups: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """Rows of quality under the heading of their group, markup; an empty one is left out."""
    rows = []
    for heading, members in groups:
        if heading:
            rows.append(f"<tr class=group><th colspan=4>{heading}</th></tr>")
        rows += [quality_row(name, quality) for name, quality in members]
    return table(("", "AUC", "Log loss", "Calibration"), rows)


def quality_row(name: str, quality: Quality) -> str:
    """A table row: each figure with its interval below it."""
    reach = quality.intervals
    cells = (
        escape(name),
        _cell(quality.auc, 4, reach.auc),
        _cell(quality.log_loss, 4, reach.log_loss),
        _cell(quality.calibration, 3, reach.calibration, held(quality)),
    )
    return row(cells)


def _cell(value: float | None, digits: int, reach: Range | None, flag: str = "") -> str:
    return f"{figure(value, digits)}{flag}<small>{interval(reach)}</small>"


def held(quality: Quality) -> str:
    """A tick where the calibration holds, a cross where it does not; nothing without a click."""
    if quality.calibration_holds is None:
        return ""
    if quality.calibration_holds:
        return ' <span class=good role="img" aria-label="holds">✓</span>'
    return ' <span class=bad role="img" aria-label="does not hold">✗</span>'


def counts(quality: Quality) -> str:
    """How many events and positive labels, in words."""
    return f"{quality.events:,} events, {quality.clicks:,} positive"


def interval(reach: Range | None) -> str:
    """Both bounds, or nothing."""
    return "" if reach is None else f"{reach[0]:.3f}–{reach[1]:.3f}"


def difference(value: float, reach: Range | None) -> str:
    """A signed difference of log losses with its interval."""
    bounds = "" if reach is None else f" ({reach[0]:+.5f} to {reach[1]:+.5f})"
    return f"{value:+.5f}{bounds}".replace("-", "−")
