"""Days are made ahead, and dropped only when nothing of them is still needed."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

from app.storage import counting, partitions
from app.storage.engine import Database
from app.storage.errors import ClusterChanged
from tests.integration.counted import (
    WRITE_YESTERDAY,
    begun,
    ended,
    execute,
    fill_catalog,
    made,
    rows,
    totals,
    write,
)
from tests.integration.making import DAY_MS, now_ms

pytestmark = pytest.mark.anyio


async def test_days_are_made_ahead_once(database: Database) -> None:
    """Yesterday, today and a week to come; the next day adds one."""
    today = partitions.day_of(now_ms())
    wanted = [today + timedelta(days=offset) for offset in range(-1, 8)]
    assert await partitions.ensure_partitions(database, now_ms()) == wanted
    assert await partitions.ensure_partitions(database, now_ms()) == []
    following = await partitions.ensure_partitions(database, now_ms() + DAY_MS)
    assert following == [today + timedelta(days=8)]
    assert await partitions.list_partitions(database) == [*wanted, *following]


async def test_an_empty_old_day_is_dropped_and_no_other(database: Database) -> None:
    """Retention takes the days before a date, not that date."""
    await fill_catalog(database)
    today = partitions.day_of(now_ms())
    assert await partitions.drop_partitions(database, today) == [today - timedelta(days=1)]
    assert min(await partitions.list_partitions(database)) == today


async def test_statistics_outlive_their_events(database: Database) -> None:
    """A day is dropped only after it was trained and counted; its statistics stay."""
    await fill_catalog(database)
    yesterday = partitions.day_of(now_ms() - DAY_MS)
    await write(database, made(decided_ms=now_ms() - DAY_MS))
    today = yesterday + timedelta(days=1)
    await execute(database, "UPDATE training_cursor SET impressions_xid = '1000000000000'")
    assert await partitions.drop_partitions(database, today) == []
    await counting.count(database)
    assert await partitions.drop_partitions(database, today) == [yesterday]
    assert await rows(database, "SELECT * FROM events") == []
    assert (await totals(database)).impressions == 1


async def test_a_day_is_not_dropped_before_it_was_trained(database: Database) -> None:
    """An impression behind no training cursor keeps its whole day, counted or not."""
    await fill_catalog(database)
    await write(database, made(decided_ms=now_ms() - DAY_MS))
    await counting.count(database)
    assert await partitions.drop_partitions(database, partitions.day_of(now_ms())) == []


async def test_an_event_acknowledged_during_the_drop_keeps_its_day(database: Database) -> None:
    """The last look is taken when nobody can write any more, so no acknowledged event is lost."""
    await fill_catalog(database)
    await execute(database, "UPDATE training_cursor SET impressions_xid = '1000000000000'")
    await counting.count(database)
    in_flight = await begun(database, WRITE_YESTERDAY)
    dropping = asyncio.create_task(
        partitions.drop_partitions(database, partitions.day_of(now_ms()))
    )
    await asyncio.sleep(0.3)  # it has looked, and waits for the writer
    await ended(in_flight)
    assert await dropping == []
    assert len(await rows(database, "SELECT * FROM events")) == 1


async def test_a_day_of_another_cluster_is_not_dropped(database: Database) -> None:
    """After a restore ids mean nothing, so nothing is known to be accounted for."""
    await fill_catalog(database)
    await execute(database, "UPDATE statistics_cursor SET system_identifier = 1")
    assert await partitions.drop_partitions(database, date(9999, 1, 1)) == []
    with pytest.raises(ClusterChanged):
        await counting.count(database)
