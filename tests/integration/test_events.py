"""Events are stored once, acknowledged after the commit, and refused rather than lost."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa

from app.storage import partitions
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.errors import BufferFull, ConstraintBroken, DatabaseUnavailable
from app.storage.events import EventWriter
from app.storage.migrate import upgrade
from models.types import Event
from tests.integration.making import DAY_MS, click_on, event, now_ms

pytestmark = pytest.mark.anyio

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[EventWriter]:
    """A writer to a database with the partitions of this week."""
    await partitions.ensure_partitions(database, now_ms())
    found = EventWriter(database, buffer=2000)
    yield found
    await found.close()


async def rows(database: Database) -> list[sa.Row[tuple[object, ...]]]:
    """All events."""
    async with database.begin() as connection:
        return list((await connection.execute(sa.text("SELECT * FROM events"))).all())


async def test_event_is_stored_as_given(writer: EventWriter, database: Database) -> None:
    """Every field of an impression arrives, with the id of its transaction."""
    given = event()
    assert await writer.write([given]) == ["accepted"]
    [row] = await rows(database)
    assert row.decided_at.timestamp() * 1000 == given.decided_ms
    assert (row.decision_id, row.slot, row.type) == (given.decision_id, 0, "impression")
    assert (row.ad_id, row.snapshot_id, row.catalog_version) == (7, given.snapshot_id, 3)
    assert (row.price_micros, row.propensity, row.placement) == (1500, 0.25, "home")
    assert (row.features, row.xid > 0) == (b"packed", True)


async def test_only_impressions_keep_features(writer: EventWriter, database: Database) -> None:
    """A click is joined to its impression, so it needs no features of its own."""
    impression = event()
    await writer.write([impression, click_on(impression)])
    assert {row.type: row.features for row in await rows(database)} == {
        "impression": b"packed",
        "click": None,
    }


async def test_repeat_is_a_duplicate(writer: EventWriter, database: Database) -> None:
    """What was stored before is a duplicate; the rest of the batch is accepted."""
    first, second = event(), event()
    assert await writer.write([first]) == ["accepted"]
    assert await writer.write([second, first]) == ["accepted", "duplicate"]
    assert len(await rows(database)) == 2


async def test_second_of_two_equal_events_is_the_duplicate(
    writer: EventWriter, database: Database
) -> None:
    """Within one call, and across calls that share a transaction, the first one counts."""
    one, other = event(), event()
    assert await writer.write([one, other, one]) == ["accepted", "accepted", "duplicate"]
    fresh = event()
    outcomes = await asyncio.gather(writer.write([fresh]), writer.write([fresh]))
    assert outcomes == [["accepted"], ["duplicate"]]
    assert len(await rows(database)) == 3


async def test_too_old_is_refused_alone(writer: EventWriter) -> None:
    """An event of a day that was dropped fails no other event."""
    ancient = event(decided_ms=now_ms() - 10 * DAY_MS)
    assert await writer.write([ancient, event()]) == ["too_old", "accepted"]


async def test_day_without_partition_is_made(writer: EventWriter, database: Database) -> None:
    """When nobody made partitions for long, events of today are stored nevertheless."""
    late = event(decided_ms=now_ms() + 20 * DAY_MS)
    assert await writer.write([late]) == ["accepted"]
    assert partitions.day_of(late.decided_ms) in await partitions.list_partitions(database)


async def test_a_day_far_ahead_does_not_keep_today_from_being_made(
    writer: EventWriter, database: Database
) -> None:
    """An import made a day of 2099, and nobody has made today's."""
    today = partitions.day_of(now_ms())
    await partitions.drop_partitions(database, today + timedelta(days=40))
    async with database.session() as connection:
        await partitions.create(connection, [date(2099, 1, 1)])
    assert await writer.write([event()]) == ["accepted"]
    assert today in await partitions.list_partitions(database)


async def test_partition_dropped_meanwhile_is_noticed(
    writer: EventWriter, database: Database
) -> None:
    """A writer that knows a partition which is gone looks again and fails no other event."""
    await writer.write([event()])
    await partitions.drop_partitions(database, partitions.day_of(now_ms()))
    yesterday = event(decided_ms=now_ms() - DAY_MS)
    assert await writer.write([yesterday, event()]) == ["too_old", "accepted"]


async def test_concurrent_calls_share_transactions(writer: EventWriter, database: Database) -> None:
    """Many small calls cost few commits."""
    calls = [[event()] for _ in range(200)]
    outcomes = await asyncio.gather(*(writer.write(call) for call in calls))
    assert outcomes == [["accepted"]] * 200
    assert len({row.xid for row in await rows(database)}) < 20


async def test_full_buffer_refuses_at_once(writer: EventWriter, database: Database) -> None:
    """Past its bound the buffer refuses a call whole; what it took is stored."""
    many = [event() for _ in range(1500)]
    taken = asyncio.create_task(writer.write(many))
    await asyncio.sleep(0)
    with pytest.raises(BufferFull) as caught:
        await writer.write([event() for _ in range(501)])
    assert (caught.value.waiting, caught.value.limit) == (1500, 2000)
    assert Counter(await taken) == {"accepted": 1500}
    assert await writer.write([event()]) == ["accepted"]
    assert len(await rows(database)) == 1501


async def test_bad_value_fails_only_its_own_call(writer: EventWriter) -> None:
    """A value that the database refuses does not fail the others of its transaction."""
    bad = writer.write([event(placement="a\0b")])
    outcomes = await asyncio.gather(writer.write([event()]), bad, return_exceptions=True)
    assert outcomes[0] == ["accepted"]
    assert isinstance(outcomes[1], ConstraintBroken)


async def test_cancelled_call_does_not_disturb_others(writer: EventWriter) -> None:
    """A client that hangs up while its events wait changes nothing for the next."""
    gone = asyncio.create_task(writer.write([event()]))
    await asyncio.sleep(0)
    gone.cancel()
    assert await writer.write([event()]) == ["accepted"]


async def test_close_writes_what_waits(database: Database) -> None:
    """A stop in good order stores what was taken and refuses the rest."""
    await partitions.ensure_partitions(database, now_ms())
    writer = EventWriter(database)
    waiting = asyncio.create_task(writer.write([event()]))
    await asyncio.sleep(0)
    await writer.close()
    assert await waiting == ["accepted"]
    with pytest.raises(DatabaseUnavailable):
        await writer.write([event()])


async def test_idle_connection_that_was_cut_is_replaced(
    writer: EventWriter, database: Database
) -> None:
    """When the server cuts every session between two calls, a repeat at most is needed."""
    given = [event() for _ in range(3)]
    await writer.write(given[:1])
    async with database.session() as connection:
        await connection.execute(CUT)
    assert await _until_answered(writer, given) == ["duplicate", "accepted", "accepted"]
    await database.ping()


async def test_transaction_that_was_cut_is_unavailable(
    writer: EventWriter, database: Database
) -> None:
    """A call whose transaction breaks says so, keeps the driver's error, and can be repeated."""
    given = [event()]
    await writer.write([event()])
    async with database.session() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        call = asyncio.create_task(writer.write(given))
        await asyncio.sleep(0.2)
        await blocker.execute(CUT)
        with pytest.raises(DatabaseUnavailable) as caught:
            await call
    assert isinstance(caught.value.__cause__, asyncpg.PostgresError | asyncpg.InterfaceError)
    assert await _until_answered(writer, given) == ["accepted"]


async def test_locked_table_is_answered_in_time(database: Database) -> None:
    """A transaction that hangs is given up, and the repeat is stored once."""
    await partitions.ensure_partitions(database, now_ms())
    writer, given = EventWriter(database, timeout_s=0.3), [event()]
    await writer.write([event()])
    async with database.session() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable):
            await writer.write(given)
    assert await _until_answered(writer, given) == ["accepted"]
    assert len(await rows(database)) == 2
    await writer.close()


async def test_database_that_goes_and_returns(tmp_path: Path) -> None:
    """While the server is away calls fail with an error that says so; afterwards they work."""
    server = EmbeddedPostgres(tmp_path, durable=False)
    database = Database(await asyncio.to_thread(server.start))
    try:
        await upgrade(database.url)
        writer, given = EventWriter(database), [event()]
        assert await writer.write([event()]) == ["accepted"]
        await asyncio.to_thread(server.stop)
        for call in (writer.write(given), database.ping(), database.raw()):
            with pytest.raises(DatabaseUnavailable):
                await call
        await asyncio.to_thread(server.start)
        assert await _until_answered(writer, given) == ["accepted"]
        await database.ping()
        await writer.close()
    finally:
        await database.close()
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(shutil.rmtree, server.folder)


async def _until_answered(writer: EventWriter, given: list[Event]) -> list[str]:
    """What a client does: repeat until there is an answer."""
    while True:
        try:
            return list(await writer.write(given))
        except DatabaseUnavailable:
            await asyncio.sleep(0.05)
