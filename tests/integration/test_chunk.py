"""Chunks hold every event once, whatever order its transactions end in."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import numpy as np
import pytest
import sqlalchemy as sa

from app.ids import uuid7
from app.storage import chunks, partitions
from app.storage.chunks import Chunk
from app.storage.engine import Database
from app.storage.errors import CursorMoved
from app.storage.events import EventWriter
from models.types import Event
from tests.integration.making import click_on, event, now_ms

pytestmark = pytest.mark.anyio

WRITE_LATE = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
VALUES (now(), $1, 0, 'impression', 7, $1, 3, 0, 1, 'late', $2)
"""

CLICK_ON_ALL = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
SELECT decided_at, decision_id, slot, 'click', ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, NULL FROM events WHERE type = 'impression'
"""

AHEAD = "(CAST(CAST({} AS text) AS bigint) + 1000000)::text::xid8"


async def next_chunk(database: Database, max_events: int = 1000) -> Chunk:
    """Record a horizon, read a chunk without any attribution window and move the cursor."""
    await chunks.record_horizon(database)
    chunk = await chunks.read_chunk(database, 0.0, max_events)
    async with database.begin() as connection:
        await chunks.advance(connection, chunk.start, chunk.end)
    return chunk


async def execute(database: Database, statement: str) -> None:
    """One statement in a transaction of its own."""
    async with database.begin() as connection:
        await connection.execute(sa.text(statement))


async def test_chunk_has_labels_and_features_in_order(
    writer: EventWriter, database: Database
) -> None:
    """Impressions come in the order of their decision, each with its features and its click."""
    now = now_ms()
    given = [event(decided_ms=now + n, features=bytes([n]) * (n + 1)) for n in range(5)]
    await writer.write([given[3], given[0], given[4], click_on(given[4])])
    await writer.write([given[2], click_on(given[0]), given[1]])
    chunk = await next_chunk(database)
    assert chunk.time_ms.tolist() == [one.decided_ms for one in given]
    assert chunk.features == [one.features for one in given]
    assert chunk.label.tolist() == [1, 0, 0, 0, 1]
    assert chunk.ad_id.tolist() == [7] * 5
    kinds = (chunk.time_ms.dtype, chunk.ad_id.dtype, chunk.label.dtype)
    assert kinds == (np.int64, np.int64, np.float32)


async def test_equal_times_are_ordered_by_decision(writer: EventWriter, database: Database) -> None:
    """Two readings give the same order even for decisions of one millisecond."""
    now = now_ms()
    given = [event(decided_ms=now, features=bytes([n])) for n in range(50)]
    await writer.write(given)
    expected = [one.features for one in sorted(given, key=lambda one: one.decision_id.bytes)]
    assert (await next_chunk(database)).features == expected


async def test_many_rows_are_joined_like_few(writer: EventWriter, database: Database) -> None:
    """A chunk that is large enough for another plan has the same labels."""
    given = [event(features=n.to_bytes(4)) for n in range(21_000)]
    clicked = given[::7]
    for start in range(0, len(given), 5000):
        await writer.write(given[start : start + 5000])
    await writer.write([click_on(one) for one in clicked])
    chunk = await next_chunk(database, 100_000)
    assert len(chunk) == 21_000
    positive = {blob for blob, label in zip(chunk.features, chunk.label, strict=True) if label}
    assert positive == {one.features for one in clicked}


async def test_empty_chunk_moves_the_cursor(database: Database, writer: EventWriter) -> None:
    """Without impressions the chunk is empty, and the cursor goes up to the horizon."""
    await writer.write([event("click")])
    chunk = await next_chunk(database)
    assert (len(chunk), chunk.features, chunk.is_cut) == (0, [], False)
    assert chunk.end.impressions > chunk.start.impressions
    assert await chunks.read_cursor(database) == chunk.end


async def test_impression_waits_for_its_window(writer: EventWriter, database: Database) -> None:
    """Only impressions below a horizon that is one attribution window old are read."""
    await writer.write([event()])
    await chunks.record_horizon(database)
    assert len(await chunks.read_chunk(database, 3600.0)) == 0
    await execute(database, "UPDATE horizons SET recorded_at = recorded_at - interval '1 hour'")
    assert len(await chunks.read_chunk(database, 3600.0)) == 1


async def test_without_a_horizon_there_is_no_chunk(writer: EventWriter, database: Database) -> None:
    """Before the first tick nothing is read, and the cursor stays where it is."""
    await writer.write([event()])
    chunk = await chunks.read_chunk(database, 0.0)
    assert (len(chunk), chunk.end.impressions) == (0, chunk.start.impressions)


async def test_late_commit_is_not_skipped(writer: EventWriter, database: Database) -> None:
    """A transaction that started before others and ends after them is in the next chunk."""
    async with database.session() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(WRITE_LATE, uuid7(now_ms()), b"late")
        await writer.write([event()])
        assert (await next_chunk(database)).features == []  # the slow one holds both back
        assert await chunks.oldest_transaction_s(database) > 0
        await transaction.commit()
    assert sorted((await next_chunk(database)).features) == [b"late", b"packed"]
    assert await chunks.oldest_transaction_s(database) == 0


async def test_a_click_that_commits_while_a_chunk_is_read_is_late(
    writer: EventWriter, database: Database
) -> None:
    """Its transaction was running when the chunk looked for clicks: the next chunk has it."""
    await writer.write([event(features=b"shown")])
    await chunks.record_horizon(database)
    async with database.session() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(CLICK_ON_ALL)
        chunk = await chunks.read_chunk(database, 0.0)
        assert chunk.label.tolist() == [0.0]
        async with database.begin() as connection:
            await chunks.advance(connection, chunk.start, chunk.end)
        await transaction.commit()
    assert (await next_chunk(database)).late.features == [b"shown"]
    assert len((await next_chunk(database)).late) == 0


async def test_aborted_transaction_holds_nothing_back(
    writer: EventWriter, database: Database
) -> None:
    """Ids of rolled-back transactions are passed over."""
    async with database.session() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute(WRITE_LATE, uuid7(now_ms()), b"never")
        await writer.write([event()])
        await transaction.rollback()
    assert (await next_chunk(database)).features == [b"packed"]


async def test_click_after_the_chunk_is_counted_late_once(
    writer: EventWriter, database: Database
) -> None:
    """A click on an impression that was learned as negative is counted in the next chunk only."""
    early, late = event(), event()
    await writer.write([early, late, click_on(early)])
    first = await next_chunk(database)
    assert (first.label.sum(), len(first.late)) == (1, 0)
    await writer.write([click_on(late), event()])
    second = await next_chunk(database)
    assert (len(second), second.label.sum(), len(second.late)) == (1, 0, 1)
    assert len((await next_chunk(database)).late) == 0


async def test_large_backlog_is_cut_between_transactions(
    writer: EventWriter, database: Database
) -> None:
    """A chunk stays below its limit, says so, and the next goes on where it ended."""
    now = now_ms()
    given = [event(decided_ms=now + n, features=bytes([n])) for n in range(30)]
    for one in given:
        await writer.write([one])
    found = [await next_chunk(database, max_events=12) for _ in range(4)]
    assert [len(chunk) for chunk in found] == [12, 12, 6, 0]
    assert [chunk.is_cut for chunk in found] == [True, True, False, False]
    assert [blob for chunk in found for blob in chunk.features] == [one.features for one in given]


async def test_a_backlog_that_is_expected_is_cut_alike(
    writer: EventWriter, database: Database
) -> None:
    """Who is behind is given the very chunks that would be found without knowing it."""
    now = now_ms()
    for n in range(8):
        await writer.write([event(decided_ms=now + 10 * n + m) for m in range(1 + n % 3)])
    await chunks.record_horizon(database)
    while True:
        given = [
            await chunks.read_chunk(database, 0.0, 4, is_behind=is_behind)
            for is_behind in (False, True)
        ]
        first, second = ((one.end, one.is_cut, one.time_ms.tolist()) for one in given)
        assert first == second
        async with database.begin() as connection:
            await chunks.advance(connection, given[0].start, given[0].end)
        if not given[0].is_cut:
            break


async def test_one_large_transaction_is_not_cut(writer: EventWriter, database: Database) -> None:
    """A transaction is read whole, so that the cursor can pass it."""
    await writer.write([event() for _ in range(20)])
    await writer.write([event()])
    assert [len(await next_chunk(database, max_events=5)) for _ in range(3)] == [20, 1, 0]


async def test_cursor_moves_once(writer: EventWriter, database: Database) -> None:
    """Of two who read the same chunk, the second is told that it was accounted for."""
    await writer.write([event()])
    await chunks.record_horizon(database)
    one, other = [await chunks.read_chunk(database, 0.0) for _ in range(2)]
    async with database.begin() as connection:
        await chunks.advance(connection, one.start, one.end)
    with pytest.raises(CursorMoved, match="fence 1"):
        async with database.begin() as connection:
            await chunks.advance(connection, other.start, other.end)


async def test_where_a_chunk_is_cut_is_found_without_reading_all_that_waits(
    writer: EventWriter, database: Database
) -> None:
    """The plan follows an index and stops; keeping all that waits aside took longer with each."""
    await writer.write([event() for _ in range(10)])
    values = {"$1": "'0'", "$2": "'9999999999'", "$3": "5"}
    query = chunks._CUT
    for name, value in values.items():
        query = query.replace(name, value)
    async with database.begin() as connection:
        plan = "\n".join((await connection.execute(sa.text(f"EXPLAIN {query}"))).scalars())
    assert "CTE" not in plan


async def test_old_horizons_are_forgotten_but_the_last(database: Database) -> None:
    """Of the horizons older than asked for, the newest stays: it may be needed."""
    for _ in range(3):
        await chunks.record_horizon(database)
    await execute(database, "UPDATE horizons SET recorded_at = recorded_at - interval '1 hour'")
    await chunks.record_horizon(database, keep_s=60.0)
    async with database.begin() as connection:
        count = await connection.scalar(sa.text("SELECT count(*) FROM horizons"))
    assert count == 2


@pytest.mark.parametrize("seed", range(3))
async def test_every_accepted_event_is_in_exactly_one_chunk(database: Database, seed: int) -> None:
    """Writers that commit late, abort and repeat, while chunks are read one after another."""
    await partitions.ensure_partitions(database, now_ms())
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    committed: list[bytes] = []
    found: list[bytes] = []
    writing = asyncio.Event()

    async def slow_writer(name: int) -> None:
        async with database.session() as connection:
            for number in range(15):
                blob = f"slow {name} {number}".encode()
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(WRITE_LATE, uuid7(now_ms()), blob)
                await asyncio.sleep(draw.random() * 0.04)
                if draw.random() < 0.3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    committed.append(blob)

    async def group_writer(name: int) -> None:
        writer = EventWriter(database, linger_s=0.0)
        for number in range(40):
            sent = [event(features=f"group {name} {number} {n}".encode()) for n in range(3)]
            repeated: list[Event] = sent + sent[: draw.randrange(3)]
            await writer.write(repeated)
            await writer.write(sent[:1])
            committed.extend(one.features for one in sent)
        await writer.close()

    async def reader() -> None:
        while not writing.is_set():
            found.extend((await next_chunk(database, max_events=20)).features)

    reading = asyncio.create_task(reader())
    writers = [slow_writer(name) for name in range(4)] + [group_writer(name) for name in range(2)]
    await asyncio.gather(*writers)
    writing.set()
    await reading
    while len(rest := await next_chunk(database)):
        found.extend(rest.features)
    assert len(committed) >= 240
    assert Counter(found) == Counter(committed)
