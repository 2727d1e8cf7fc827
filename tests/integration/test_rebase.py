"""After a restore into another cluster: what is refused, and what the rebase makes of events."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa

from app.storage import chunks, counting, partitions, quarantine
from app.storage.engine import Database
from app.storage.errors import ClusterChanged
from app.storage.events import EventWriter
from models.types import Event
from tests.integration.making import click_on, event, now_ms
from tests.integration.test_chunk import AHEAD, execute, next_chunk

pytestmark = pytest.mark.anyio


async def restored(database: Database) -> None:
    """Make the database one of another cluster, whose ids this one has not reached yet."""
    await execute(database, "UPDATE events SET xid = " + AHEAD.format("xid"))  # noqa: S608 - of our making
    moved = ", ".join(
        f"{name} = " + AHEAD.format(name) for name in ("impressions_xid", "clicks_xid")
    )
    await execute(database, f"UPDATE training_cursor SET {moved}, system_identifier = 1")  # noqa: S608 - of our making


async def all_chunks(database: Database, most: int) -> list[list[bytes]]:
    """The features of all that waits, chunk by chunk."""
    await chunks.record_horizon(database)
    found: list[list[bytes]] = []
    while chunk := await chunks.read_chunk(database, 0.0, most):
        async with database.begin() as connection:
            await chunks.advance(connection, chunk.start, chunk.end)
        found.append(list(chunk.features))
    return found


def flagged(impression: Event) -> Event:
    """A click on it that broke a rule."""
    return msgspec.structs.replace(click_on(impression), quarantined_by="token")


async def test_other_cluster_is_refused_until_the_rebase(
    writer: EventWriter, database: Database
) -> None:
    """After a restore reading is refused; the rebase reads what was not learned, and that once."""
    await writer.write([event(features=b"learned")])
    learned = await next_chunk(database)
    await writer.write([event(features=b"waiting")])
    await execute(database, "UPDATE training_cursor SET system_identifier = 1")
    # The restored events carry ids that this cluster has not reached yet.
    await execute(database, "UPDATE events SET xid = " + AHEAD.format("xid"))  # noqa: S608 - of our making
    moved = ", ".join(
        f"{name} = " + AHEAD.format(name) for name in ("impressions_xid", "clicks_xid")
    )
    await execute(database, f"UPDATE training_cursor SET {moved}")  # noqa: S608 - of our making
    for call in (chunks.read_cursor(database), chunks.read_chunk(database, 0.0)):
        with pytest.raises(ClusterChanged, match="rebase"):
            await call
    with pytest.raises(ClusterChanged):
        async with database.begin() as connection:
            await chunks.advance(connection, learned.end, learned.end)
    await chunks.rebase(database, "ann")
    assert (await next_chunk(database)).features == [b"waiting"]
    assert (await next_chunk(database)).features == []


async def test_events_since_the_restore_are_read_once_after_the_rebase(
    writer: EventWriter, database: Database
) -> None:
    """Their ids are of a cluster that began anew, far below the restored cursor."""
    await writer.write([event(features=b"learned")])
    await next_chunk(database)
    await execute(database, "UPDATE events SET xid = " + AHEAD.format("xid"))  # noqa: S608 - of our making
    moved = f"impressions_xid = {AHEAD.format('impressions_xid')}, system_identifier = 1"
    await execute(database, f"UPDATE training_cursor SET {moved}")  # noqa: S608 - of our making
    await writer.write([event(features=b"since")])
    await chunks.rebase(database, "ann")
    assert (await next_chunk(database)).features == [b"since"]
    assert (await next_chunk(database)).features == []


async def test_what_waits_after_a_rebase_is_read_in_chunks(
    writer: EventWriter, database: Database
) -> None:
    """However long ago the other events were, chunks of what waits are as large as asked for."""
    day = 86_400_000
    for ago in (3, 2):
        await partitions.ensure_partitions(database, now_ms() - ago * day)
    await writer.write([event(decided_ms=now_ms() - 3 * day, features=b"learned")])
    await next_chunk(database)
    made = [event(decided_ms=now_ms() - 1000 * age, features=b"%d" % age) for age in range(300)]
    far = event(decided_ms=now_ms() - 2 * day, features=b"300")
    await writer.write([*made, far])
    await restored(database)
    await chunks.rebase(database, "ann")
    found = await all_chunks(database, 50)
    assert max(map(len, found)) <= 52
    every = [int(one) for part in found for one in part]
    assert every == sorted(range(301), reverse=True)
    async with database.begin() as connection:
        now = await connection.scalar(sa.text("SELECT pg_current_xact_id()::text"))
    assert int(str(now)) > counting.REBASED_IDS


async def test_what_waits_of_one_moment_is_one_chunk_and_counted(
    writer: EventWriter, database: Database
) -> None:
    """Events that no time tells apart get one id, which the statistics have behind them."""
    now = now_ms()
    await writer.write([event(decided_ms=now, features=b"%d" % n) for n in range(20)])
    await restored(database)
    await execute(database, "UPDATE statistics_cursor SET system_identifier = 1")
    await chunks.rebase(database, "ann")
    await counting.count(database)
    async with database.begin() as connection:
        shown = await connection.scalar(sa.text("SELECT sum(impressions) FROM ad_statistics"))
    assert shown == 20
    assert list(map(len, await all_chunks(database, 5))) == [20]


async def test_a_click_that_was_learned_late_is_not_learned_again(
    writer: EventWriter, database: Database
) -> None:
    """Clicks were accounted for further than impressions; the rebase goes by each one's own."""
    shown = event(features=b"shown")
    await writer.write([shown])
    await next_chunk(database)
    await writer.write([click_on(shown)])
    chunk = await chunks.read_chunk(database, 0.0)
    assert len(chunk.late) == 1
    async with database.begin() as connection:
        await chunks.advance(connection, chunk.start, chunk.end)
    await restored(database)
    await chunks.rebase(database, "ann")
    chunk = await next_chunk(database)
    assert (len(chunk), len(chunk.late)) == (0, 0)


async def test_between_restore_and_rebase_nothing_is_set_aside_or_released(
    writer: EventWriter, database: Database
) -> None:
    """Their ids would be told wrongly: a release waits for the rebase, stored events stay."""
    first, second = event(features=b"first"), event(features=b"second")
    await writer.write([first, second, flagged(first)])
    await restored(database)
    await writer.write([click_on(second)])
    await writer.write([flagged(second)])
    with pytest.raises(ClusterChanged, match="rebase"):
        await quarantine.release(database, "token", "ann")
    await chunks.rebase(database, "ann")
    chunk = await next_chunk(database)
    assert (list(chunk.features), chunk.label.tolist()) == ([b"second"], [1.0])
    await quarantine.release(database, "token", "ann")
    assert (await next_chunk(database)).features == [b"first"]
    assert (await next_chunk(database)).features == []
