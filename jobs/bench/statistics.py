"""`adscent bench statistics`: events counted a second, against a GROUP BY that writes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from app.storage import counting, statistics
from app.storage.engine import Database
from app.storage.statistics import HOUR_MS, Dimension, PerformanceQuery
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, measure, show, write
from jobs.bench.train import FEATURES

_GROUPED = """
SELECT count(*) FROM (
    SELECT date_trunc('hour', decided_at, 'UTC'), ad_id, placement, snapshot_id,
        count(*) FILTER (WHERE type = 'impression'), count(*) FILTER (WHERE type = 'click'),
        sum(price_micros)
    FROM events WHERE quarantined_by IS NULL GROUP BY 1, 2, 3, 4
) AS grouped
"""
_BACK = "UPDATE statistics_cursor SET xid = '0'"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many impressions of how many ads are counted, and how often."""

    ads: int = 10_000
    impressions: int = 1_000_000
    rounds: int = 5


QUICK = Sizes(ads=500, impressions=20_000, rounds=2)


def run(report: Path | None, seed: int, quick: bool = False) -> int:
    """Measure, print the table, write the JSON report. Returns 0.

    Raises `BenchmarkBroken` when a count is not that of the events.
    """
    console, sizes = Console(), QUICK if quick else Sizes()
    machine = describe()
    with console.status("events being counted"):
        measured = asyncio.run(_measured(sizes, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, **asdict(sizes)}
    made = Report("bench statistics", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    async with deployed(seed, sizes.ads, sizes.impressions, FEATURES) as deployment:
        await deployment.ingest(sizes.impressions)
        database = deployment.context.database
        await _execute(database, "VACUUM ANALYZE")
        rounds = [await _round(deployment) for _ in range(sizes.rounds)]
    events = rounds[0].events
    plain = [one.events / one.grouped_s for one in rounds]
    about = f"of {events:,} events into {rounds[0].rows:,} rows of statistics, in one transaction"
    against = "; baseline: a GROUP BY of the same events that writes nothing"
    return {
        "new_rows": measure(
            [one.events / one.new_s for one in rounds],
            "events/s",
            f"a count {about}, all of them new{against}",
            baseline=plain,
        ),
        "known_rows": measure(
            [one.events / one.known_s for one in rounds],
            "events/s",
            f"a count {about}, all of them there before{against}",
            baseline=plain,
        ),
        "report_ads": measure(
            [one.by_ad_s * 1000 for one in rounds],
            "ms",
            "a report of all hours by ad, 1,000 rows by spend",
        ),
        "report_campaigns": measure(
            [one.by_campaign_s * 1000 for one in rounds],
            "ms",
            "a report of all hours by campaign and hour, 1,000 rows by spend",
        ),
    }


@dataclass(frozen=True, slots=True)
class _Round:
    """Seconds of each step."""

    events: int
    rows: int
    grouped_s: float
    new_s: float
    known_s: float
    by_ad_s: float
    by_campaign_s: float


async def _round(deployment: Deployment) -> _Round:
    database = deployment.context.database
    stored = await _number(database, "SELECT count(*) FROM events")

    async def counted() -> None:
        found = await counting.count(database, max_events=stored)
        if found is None or found.events != stored:
            raise BenchmarkBroken(f"{stored} events are in the table; counted: {found}")

    async def grouped() -> None:
        await _number(database, _GROUPED)

    await _execute(database, "TRUNCATE ad_statistics")
    grouped_s = await _seconds(grouped)
    await _execute(database, _BACK)
    new_s = await _seconds(counted)
    by_ad_s = await _seconds(lambda: _report(database, ("ad",)))
    by_campaign_s = await _seconds(lambda: _report(database, ("campaign", "hour")))
    await _execute(database, "CHECKPOINT")  # what the first count left to be written is not its own
    await _execute(database, _BACK)
    known_s = await _seconds(counted)
    rows = await _number(database, "SELECT count(*) FROM ad_statistics")
    return _Round(stored, rows, grouped_s, new_s, known_s, by_ad_s, by_campaign_s)


async def _report(database: Database, groups: tuple[Dimension, ...]) -> None:
    until_ms = time.time_ns() // 1_000_000 + HOUR_MS
    query = PerformanceQuery(0, until_ms, groups, ranked_by="spend_micros")
    if not (await statistics.performance(database, query)).rows:
        raise BenchmarkBroken("the report is empty")


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _execute(database: Database, statement: str) -> None:
    async with database.session(command_timeout=None) as connection:
        await connection.execute(statement)


async def _number(database: Database, query: str) -> int:
    async with database.session(command_timeout=None) as connection:
        found: int = await connection.fetchval(query)
    return found
