"""What the visits of a soak know, against what the deployment holds: lost and doubled events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.storage import job_runs, statistics
from app.storage.engine import Database
from app.storage.statistics import HOUR_MS, PerformanceQuery
from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.report import Measure, measure
from jobs.bench.soak_visits import Seen

_ACTOR = "bench soak"
_SETTLED_S = 180.0
_STORED = """
SELECT ad_id, type, count(*) AS events, count(quarantined_by) AS quarantined
FROM events GROUP BY ad_id, type
"""
_LEARNED = "SELECT coalesce(sum(events), 0) FROM retrain_runs WHERE state <> 'refused'"

ByAd = dict[int, int]


@dataclass(slots=True)
class Ledger:
    """Acknowledged events by ad."""

    impressions: Counter[int] = field(default_factory=Counter)
    clicks: Counter[int] = field(default_factory=Counter)

    def add(self, seen: Seen) -> None:
        """Enter what one client has seen."""
        self.impressions.update(seen.impressions)
        self.clicks.update(seen.clicks)


@dataclass(frozen=True, slots=True)
class Held:
    """What the deployment holds at the end: of the table, of the statistics, and learned."""

    stored: dict[str, ByAd]
    counted: dict[str, ByAd]
    learned: int
    quarantined: int


async def held(database: Database, ledger: Ledger) -> Held:
    """Wait until everything acknowledged is learned and counted, then look."""
    await _settle(database, ledger)
    async with database.session(command_timeout=None) as connection:
        rows = await connection.fetch(_STORED)
        learned = int(await connection.fetchval(_LEARNED))
    stored: dict[str, ByAd] = {"impression": {}, "click": {}}
    for row in rows:
        stored.setdefault(row["type"], {})[row["ad_id"]] = row["events"]
    quarantined = sum(row["quarantined"] for row in rows)
    return Held(stored, await _counted(database), learned, quarantined)


def faults(ledger: Ledger, found: Held) -> list[str]:
    """What does not agree, a line each; nothing when no event was lost or doubled."""
    lines = []
    for name, known in (("impression", ledger.impressions), ("click", ledger.clicks)):
        for place, has in (("the table", found.stored), ("the statistics", found.counted)):
            lines += _differences(name, place, known, has[name])
    shown = ledger.impressions.total()
    if found.learned != shown:
        lines.append(f"{shown} impressions were acknowledged, {found.learned} are in chunks")
    if found.quarantined:
        lines.append(f"{found.quarantined} events are quarantined: the rules took visits for bots")
    return lines


def measures(ledger: Ledger, found: Held) -> dict[str, Measure]:
    """The sums, each against what was acknowledged."""
    shown, clicked = float(ledger.impressions.total()), float(ledger.clicks.total())
    places = {"stored": ("rows of the table", found.stored)}
    places["counted"] = ("counts of the statistics", found.counted)
    made = {
        f"{place}_{name}s": _against(float(sum(has[name].values())), known, about)
        for place, (about, has) in places.items()
        for name, known in (("impression", shown), ("click", clicked))
    }
    return made | {"learned_impressions": _against(float(found.learned), shown, "rows of chunks")}


def _against(value: float, acknowledged: float, about: str) -> Measure:
    return measure(
        [value], "events", f"{about}; baseline: acknowledged events", baseline=[acknowledged]
    )


async def _settle(database: Database, ledger: Ledger) -> None:
    """Ask for training until every impression has been in a chunk. Raises `BenchmarkBroken`."""
    ended_ms = time.time_ns() // 1_000_000
    shown, deadline = ledger.impressions.total(), time.monotonic() + _SETTLED_S
    while not await _is_settled(database, shown, ended_ms):
        if time.monotonic() > deadline:
            return  # what is missing is told by the ledger
        await job_runs.request_retrain(database, {}, _ACTOR, time.time_ns() // 1_000_000)
        await asyncio.sleep(3.0)


async def _is_settled(database: Database, shown: int, ended_ms: int) -> bool:
    async with database.session() as connection:
        learned = int(await connection.fetchval(_LEARNED))
    query = PerformanceQuery(0, ended_ms + HOUR_MS)
    until_ms = (await statistics.performance(database, query)).complete_until_ms
    return learned >= shown and until_ms is not None and until_ms > ended_ms


async def _counted(database: Database) -> dict[str, ByAd]:
    found: dict[str, ByAd] = {"impression": {}, "click": {}}
    until_ms = time.time_ns() // 1_000_000 + HOUR_MS
    query = PerformanceQuery(0, until_ms, ("ad",), limit=1_000_000)
    for row in (await statistics.performance(database, query)).rows:
        ad_id = int(str(row.keys["ad"]))
        found["impression"][ad_id], found["click"][ad_id] = row.impressions, row.clicks
    return found


def _differences(
    name: str, place: str, known: Mapping[int, int], has: Mapping[int, int]
) -> list[str]:
    """One line for all ads of which a count differs."""
    wrong = [ad for ad in {*known, *has} if known.get(ad, 0) != has.get(ad, 0)]
    if not wrong:
        return []
    lost = sum(max(0, known.get(ad, 0) - has.get(ad, 0)) for ad in wrong)
    more = sum(max(0, has.get(ad, 0) - known.get(ad, 0)) for ad in wrong)
    return [f"{name}s in {place}: {lost} lost, {more} too many, of {len(wrong)} ads"]


def check_any(ledger: Ledger) -> None:
    """Raise `BenchmarkBroken` when nothing was acknowledged at all."""
    if not ledger.impressions or not ledger.clicks:
        raise BenchmarkBroken("no impression or no click was acknowledged")
