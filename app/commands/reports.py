"""`adscent reports`: what ads did and what they cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.api import performance_csv
from app.api.moments import milliseconds
from app.commands.errors import CommandError
from app.commands.session import with_database
from app.settings import Settings
from app.storage import statistics
from app.storage.engine import Database
from app.storage.partitions import DAY_MS
from app.storage.statistics import HOUR_MS, Performance, PerformanceQuery, PerformanceRow

_PAGE = 10_000


class RangeInvalid(CommandError):
    """The hours of a report do not follow each other."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report as texts: a header, its rows, and what is to be known about them."""

    columns: list[str]
    rows: list[list[str]]
    csv: str
    note: str


def hours(since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """The range in ms, by default the 24 hours that end with the present one.

    Times are UTC, cut to their hour. Raises `RangeInvalid`.
    """
    until_ms = _hour(until) if until else -(-time.time_ns() // 1_000_000 // HOUR_MS) * HOUR_MS
    since_ms = _hour(since) if since else until_ms - DAY_MS
    if since_ms >= until_ms:
        raise RangeInvalid("--since must be before --until; exchange them")
    return since_ms, until_ms


def performance(settings: Settings, query: PerformanceQuery) -> Report:
    """The report of a query, all of its rows unless it is ranked."""
    found = with_database(settings, lambda database: _whole(database, query))
    return Report(
        performance_csv.columns(query.group_by),
        [performance_csv.cells(row) for row in found.rows],
        performance_csv.table(query.group_by, found.rows),
        _note(query, found),
    )


async def _whole(database: Database, query: PerformanceQuery) -> Performance:
    """Every page of a query, each of a moment of its own; complete is what all of them are."""
    if query.ranked_by is not None or not query.group_by:
        return await statistics.performance(database, query)
    rows: list[PerformanceRow] = []
    asked = replace(query, limit=_PAGE)
    first = found = await statistics.performance(database, asked)
    rows += found.rows
    while len(found.rows) == _PAGE:
        asked = replace(asked, after=tuple(rows[-1].keys.values()))
        found = await statistics.performance(database, asked)
        rows += found.rows
    return Performance(rows, first.complete_until_ms)


def _note(query: PerformanceQuery, found: Performance) -> str:
    since, until = (performance_csv.time_text(ms) for ms in (query.since_ms, query.until_ms))
    if found.complete_until_ms is None:
        return f"{since} to {until}; nothing was counted yet: `adscent jobs` counts the events"
    counted = performance_csv.time_text(found.complete_until_ms)
    return f"{since} to {until}; every event acknowledged before {counted} is counted"


def _hour(given: datetime) -> int:
    found = milliseconds(given.replace(tzinfo=UTC))
    assert found is not None  # noqa: S101 - a time was given
    return found // HOUR_MS * HOUR_MS
