"""Counts that are late, repeated, killed, or moved to another cluster: every event counts once."""

from __future__ import annotations

import asyncio
import random

import pytest

from app.ids import uuid7
from app.storage import chunks, counting, quarantine
from app.storage.engine import Database
from app.storage.errors import ClusterChanged, DatabaseUnavailable
from app.storage.events import EventWriter
from app.storage.statistics import HOUR_MS
from tests.integration.counted import (
    KEPT,
    SNAPSHOTS,
    STORED,
    WRITE,
    execute,
    fill_catalog,
    made,
    of,
    rows,
    write,
)
from tests.integration.making import now_ms

pytestmark = pytest.mark.anyio

KILL = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND query ~ 'ad_statistics|statistics_cursor|FROM set_aside|AS ready'
"""
"""Ends whoever is counting, at whatever step."""


@pytest.mark.parametrize("seed", range(3))
async def test_sums_are_those_of_the_events_whatever_happens(database: Database, seed: int) -> None:
    """Writers that are late, abort and repeat, clicks set aside and released, while counts run
    beside each other and are killed in the middle."""
    await fill_catalog(database)
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    done = asyncio.Event()

    async def slow_writer() -> None:
        async with database.session() as connection:
            for _ in range(15):
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(WRITE, uuid7(now_ms()), b"slow")
                await asyncio.sleep(draw.random() * 0.04)
                await (transaction.rollback() if draw.random() < 0.3 else transaction.commit())

    async def group_writer() -> None:
        writer = EventWriter(database, linger_s=0.0)
        for _ in range(40):
            shown = [
                made(
                    ad_id=draw.randint(1, 4),
                    snapshot_id=draw.choice(SNAPSHOTS),
                    decided_ms=now_ms() - draw.randrange(3 * HOUR_MS),
                    price_micros=draw.randrange(5000),
                )
                for _ in range(3)
            ]
            clicks = [of(one, "click") for one in shown if draw.random() < 0.5]
            bad = [of(one, "click", quarantined_by="token") for one in shown[: draw.randrange(2)]]
            sold = [of(one, "conversion", value_micros=draw.randrange(9)) for one in shown[:1]]
            await writer.write([*shown, *shown[: draw.randrange(3)]])
            for part in draw.sample([clicks, bad, sold, shown], 4):
                await writer.write(part)
        await writer.close()

    async def releaser() -> None:
        while not done.is_set():
            await asyncio.sleep(draw.random() * 0.1)
            await quarantine.release(database, "token", "test", draw.randint(1, 4))

    outcomes: list[str] = []

    async def counter() -> None:
        while not done.is_set():
            try:
                await counting.count(database, max_events=draw.choice((7, 1000)))
                outcomes.append("counted")
            except DatabaseUnavailable:
                outcomes.append("killed")

    async def killer() -> None:
        while not done.is_set():
            await asyncio.sleep(draw.random() * 0.02)
            await execute(database, KILL)

    beside = [asyncio.create_task(one) for one in (counter(), counter(), releaser(), killer())]
    await asyncio.gather(*[slow_writer() for _ in range(3)], *[group_writer() for _ in range(2)])
    done.set()
    await asyncio.gather(*beside)
    while (found := await counting.count(database)) is None or found.is_cut:
        pass  # a killed session keeps its lock a moment longer
    assert min(outcomes.count("counted"), outcomes.count("killed")) > 5
    assert len(stored := await rows(database, STORED)) > 20
    assert await rows(database, KEPT) == stored


AHEAD = "(CAST(CAST({} AS text) AS bigint) + 1000000)::text::xid8"


async def restored(database: Database) -> None:
    """Make the database one of another cluster, whose ids this one has not reached yet."""
    moved = {
        "events": ("xid",),
        "set_aside": ("xid", "stored_xid"),
        "statistics_cursor": ("xid",),
        "training_cursor": ("impressions_xid", "clicks_xid"),
    }
    for table, columns in moved.items():
        changes = ", ".join(f"{name} = {AHEAD.format(name)}" for name in columns)
        await execute(database, f"UPDATE {table} SET {changes}")  # noqa: S608 - of our making
    for table in ("statistics_cursor", "training_cursor"):
        await execute(database, f"UPDATE {table} SET system_identifier = 1")  # noqa: S608


async def test_after_a_restore_every_event_counts_once(database: Database) -> None:
    """Refused until the rebase, which counts what was not, and what came since the restore."""
    await fill_catalog(database)
    counted, waiting, aside = made(), made(ad_id=2), made(ad_id=3)
    await write(database, counted, of(counted, "click"), aside)
    await counting.count(database)
    await write(database, waiting, of(aside, "click", quarantined_by="token"))
    await restored(database)
    await write(database, since := made(ad_id=4), of(waiting, "click"))
    with pytest.raises(ClusterChanged):
        await counting.count(database)
    await chunks.rebase(database, "ann")
    assert await rows(database, KEPT) == await rows(database, STORED)
    await write(database, of(since, "click"), of(waiting, "conversion", value_micros=1))
    await quarantine.release(database, "token", "test")
    for _ in range(2):
        await counting.count(database)
        assert await rows(database, KEPT) == await rows(database, STORED)
