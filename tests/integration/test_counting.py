"""The statistics hold every event once: by hour, ad, placement and snapshot."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from app.ids import uuid7
from app.settings import Settings
from app.storage import counting, quarantine
from app.storage.catalog import Catalog
from app.storage.engine import Database, ms_of
from app.storage.statistics import HOUR_MS
from jobs import statistics as job
from jobs.context import Context, Measures
from jobs.transfer.importing import import_file
from models.schema import parse_schema
from models.types import Ad
from tests.integration.counted import (
    KEPT,
    SNAPSHOTS,
    STORED,
    WRITE,
    begun,
    ended,
    fill_catalog,
    made,
    of,
    rows,
    totals,
    write,
)
from tests.integration.making import DAY_MS, now_ms

pytestmark = pytest.mark.anyio

SCHEMA = """
version = 1
[user.geo]
kind = "categorical"
[ad.campaign]
kind = "categorical"
"""


async def test_events_are_counted_by_hour_ad_placement_and_snapshot(database: Database) -> None:
    """Every type in its own column, in the hour of the decision, priced by the ad's bid type."""
    await fill_catalog(database)
    draw = random.Random(1)  # noqa: S311 - not for secrets
    shown = [
        made(
            ad_id=draw.randint(1, 4),
            placement=draw.choice(("home", "")),
            snapshot_id=draw.choice(SNAPSHOTS),
            decided_ms=now_ms() - draw.randrange(2 * HOUR_MS),
            price_micros=draw.randrange(10_000),
        )
        for _ in range(60)
    ]
    await write(database, *shown, *[of(one, "click") for one in shown[::3]])
    conversions = [of(one, "conversion", value_micros=7_000_001) for one in shown[::9]]
    await write(database, *conversions, *[of(one, "close") for one in shown[::5]])
    assert await counting.count(database) is not None
    assert await rows(database, KEPT) == await rows(database, STORED)
    found = await totals(database)
    assert (found.impressions, found.clicks, found.closes) == (60, 20, 12)
    assert (found.conversions, found.conversion_value_micros) == (7, 49_000_007)


async def test_no_micro_is_lost_to_rounding(database: Database) -> None:
    """Prices per thousand add up in thousandths of a micro; one sum is rounded, once."""
    await fill_catalog(database)
    for _ in range(3):
        await write(database, *[made(ad_id=2, price_micros=333) for _ in range(5)])
        await counting.count(database)
    found = await totals(database)
    assert (found.spend_thousandths, found.spend_micros, found.ecpm_micros) == (4995, 5, 333)


async def test_a_price_is_read_by_the_bid_type_of_its_decision(database: Database) -> None:
    """An ad that changes between clicks and impressions leaves older decisions what they were."""
    await fill_catalog(database)
    catalog, versions = Catalog(database), [1]
    for kind in ("cpm", "cpm", "cpc"):
        ad = Ad(1, 2, 1, bid_micros=5000, bid_type=kind)  # type: ignore[arg-type]  # of two words
        versions.append((await catalog.put_ad(ad, "test")).version)
    for version, price in zip(versions, (1, 10, 100, 1000), strict=True):
        shown = made(price_micros=price, catalog_version=version)
        await write(database, shown, of(shown, "click"))
    await counting.count(database)
    assert (await totals(database)).spend_thousandths == 1000 * 1 + 10 + 100 + 1000 * 1000


async def test_a_repeat_counts_once(database: Database) -> None:
    """Neither a repeated event nor a second count changes anything."""
    await fill_catalog(database)
    shown = made()
    for _ in range(3):
        await write(database, shown, of(shown, "click"), of(shown, "click"))
        await counting.count(database)
    assert [getattr(await totals(database), name) for name in ("impressions", "clicks")] == [1, 1]


async def test_huge_sums_are_exact(database: Database) -> None:
    """No value that an event may have stops the counting."""
    await fill_catalog(database)
    largest = 2**63 - 1
    for _ in range(2):
        shown = made(price_micros=largest)
        await write(database, of(shown, "click"), of(shown, "conversion", value_micros=largest))
    await counting.count(database)
    found = await totals(database)
    assert (found.spend_micros, found.conversion_value_micros) == (2 * largest, 2 * largest)


async def test_slices_add_up(database: Database) -> None:
    """A backlog is counted in transactions of a bounded size, each saying whether more waits."""
    await fill_catalog(database)
    for _ in range(5):
        await write(database, *[made() for _ in range(4)])
    sizes = []
    while done := await counting.count(database, max_events=6):
        sizes.append(done.events)
        if not done.is_cut:
            break
    assert (sizes, (await totals(database)).impressions) == ([4] * 5, 20)


async def test_an_open_transaction_holds_back_what_follows_it(database: Database) -> None:
    """Its events are counted once it ends; until then the figures say how far they are complete."""
    await fill_catalog(database)
    before = await counting.count(database)
    assert before is not None
    async with database.session() as connection, connection.transaction():
        await connection.execute(WRITE, uuid7(now_ms()), b"late")
        await write(database, made())
        acknowledged_ms = now_ms()
        held = await counting.count(database)
        assert held is not None
        assert held.complete_until_ms is not None
        assert held.complete_until_ms < acknowledged_ms
        assert (await totals(database)).impressions == 0
    after = await counting.count(database)
    assert after is not None
    assert after.complete_until_ms is not None
    assert after.complete_until_ms > acknowledged_ms
    assert (await totals(database)).impressions == 2


async def test_completeness_moves_on_while_transactions_overlap(database: Database) -> None:
    """There is always one running: once those of an earlier moment have ended, that one is it."""
    await fill_catalog(database)
    early = await begun(database)
    await write(database, made())
    acknowledged_ms = now_ms()
    await counting.count(database)
    late = await begun(database)
    await ended(early)
    await asyncio.sleep(0.01)
    later_ms = now_ms()
    await write(database, made())
    done = await counting.count(database)
    assert done is not None
    assert done.complete_until_ms is not None
    assert acknowledged_ms <= done.complete_until_ms < later_ms
    assert (await totals(database)).impressions == 2
    await ended(late)


async def test_what_is_set_aside_after_it_was_counted_is_taken_back(database: Database) -> None:
    """And counted again after its release: never twice, never less than nothing."""
    await fill_catalog(database)
    good, bad = made(), made(ad_id=2)
    found = []
    await write(database, good, of(good, "click"), bad)
    for step in ("counted", "aside", "released", "aside again"):
        if "aside" in step:
            await write(database, of(bad, "click", quarantined_by="token"))
        if step == "released":
            await quarantine.release(database, "token", "test")
        await counting.count(database)
        assert await rows(database, KEPT) == await rows(database, STORED)
        found.append((await totals(database)).impressions)
    assert found == [2, 1, 2, 1]
    assert await rows(database, "SELECT * FROM set_aside") == []


async def test_what_is_set_aside_before_it_was_counted_never_counts(database: Database) -> None:
    """Its entry adds and takes away the same; the release then counts it once."""
    await fill_catalog(database)
    bad = made()
    await write(database, bad)
    await write(database, of(bad, "click", quarantined_by="token"))
    await counting.count(database)
    assert await rows(database, KEPT) == []
    await quarantine.release(database, "token", "test")
    await counting.count(database)
    assert [getattr(await totals(database), name) for name in ("impressions", "clicks")] == [1, 1]


async def test_set_aside_while_the_count_lags_behind(database: Database) -> None:
    """Set aside and released beyond the horizon: each part counts when the cursor reaches it."""
    await fill_catalog(database)
    bad = made()
    await write(database, bad)
    async with database.session() as connection, connection.transaction():
        await connection.execute(WRITE, uuid7(now_ms()), b"holds the horizon")
        await write(database, of(bad, "click", quarantined_by="token"))
        await counting.count(database)
        assert (await totals(database)).impressions == 1
        await quarantine.release(database, "token", "test")
        await counting.count(database)
    await counting.count(database)
    assert await rows(database, KEPT) == await rows(database, STORED)


async def test_old_hours_are_forgotten(database: Database) -> None:
    """Retention of statistics is by the hour, and their own."""
    await fill_catalog(database)
    hour_ms = now_ms() // HOUR_MS * HOUR_MS
    for ms in (hour_ms - 1, hour_ms):
        await write(database, made(decided_ms=ms))
    await counting.count(database)
    assert await counting.forget(database, hour_ms) == 1
    [(hour,)] = await rows(database, "SELECT hour FROM ad_statistics")
    assert ms_of(hour) == hour_ms


async def test_jobs_count_everything_and_forget_old_hours(
    database: Database, tmp_path: Path
) -> None:
    """A backlog is counted in one tick, and Prometheus told until when; retention is in days."""
    await fill_catalog(database)
    registry = CollectorRegistry()
    context = Context(
        settings=Settings(home=tmp_path, statistics_retention_days=1),
        database=database,
        schema=parse_schema(SCHEMA),
        store=tmp_path,
        clock=lambda: now_ms() + 2 * DAY_MS,
        log=structlog.get_logger("jobs"),
        measures=Measures(registry),
    )
    await write(database, made())
    before_s = time.time()
    await job.count(context)
    until = registry.get_sample_value("adscent_statistics_complete_until_seconds")
    assert until is not None
    assert until >= before_s - 0.001
    assert (await totals(database)).impressions == 1
    await job.forget(context)
    assert (await totals(database)).impressions == 0


async def test_imported_events_count(database: Database, tmp_path: Path) -> None:
    """A file's events are counted like any other, of whatever time and ad."""
    schema = parse_schema(SCHEMA)
    path = tmp_path / "log.csv"
    lines = ["decided_at,ad_id,clicked,price_micros,user.geo,ad.campaign"]
    lines += [f"2026-01-0{1 + n % 3}T10:00:00Z,{n},{n % 2},{n},us,7" for n in range(1, 9)]
    path.write_text("\n".join(lines) + "\n")
    await import_file(database, path, schema, tmp_path / "ledgers")
    await counting.count(database)
    stored = STORED.replace("events.ad_id = 2", "false").replace("events.ad_id <> 2", "true")
    assert await rows(database, KEPT) == await rows(database, stored)
    found = await totals(database)
    assert (found.impressions, found.clicks, found.spend_micros) == (8, 4, 1 + 3 + 5 + 7)
