"""What a rule has set aside is not learned; what is released is learned once."""

from __future__ import annotations

import msgspec
import pytest

from app.storage import chunks, partitions, quarantine
from app.storage.chunks import Chunk
from app.storage.engine import Database
from app.storage.events import EventWriter
from models.types import Event
from tests.integration.making import click_on, event, now_ms

pytestmark = pytest.mark.anyio


async def _next(database: Database) -> Chunk:
    """The next chunk with no attribution window; the cursor moves past it."""
    await chunks.record_horizon(database)
    chunk = await chunks.read_chunk(database, 0.0)
    async with database.begin() as connection:
        await chunks.advance(connection, chunk.start, chunk.end)
    return chunk


def _flagged(impression: Event) -> Event:
    return msgspec.structs.replace(click_on(impression), quarantined_by="token")


async def test_quarantined_events_are_learned_once_after_their_release(database: Database) -> None:
    """Neither the click nor its impression is in a chunk before, both are in one after."""
    await partitions.ensure_partitions(database, now_ms())
    writer, (good, bad) = EventWriter(database), (event(features=b"g"), event(features=b"b"))
    await writer.write([good, bad, click_on(good)])
    await writer.write([_flagged(bad)])
    first = await _next(database)
    assert (list(first.features), first.label.tolist()) == ([b"g"], [1.0])
    assert await quarantine.release(database, "token", "test") == 2
    second = await _next(database)
    assert (list(second.features), second.label.tolist(), len(second.late)) == ([b"b"], [1.0], 0)
    assert len(await _next(database)) == 0
    await writer.close()


async def test_an_impression_that_was_learned_is_not_learned_again(database: Database) -> None:
    """Past the attribution window only the click is set aside; released, it is a late click."""
    await partitions.ensure_partitions(database, now_ms())
    writer, shown = EventWriter(database, window_s=0.0), event()
    await writer.write([shown])
    assert len(await _next(database)) == 1
    await writer.write([_flagged(shown)])
    assert len((await _next(database)).late) == 0
    assert await quarantine.release(database, "token", "test") == 1
    chunk = await _next(database)
    assert (len(chunk), len(chunk.late)) == (0, 1)
    await writer.close()


async def test_the_window_that_counts_is_that_of_training(database: Database) -> None:
    """Chunks are read with another window than the writer's setting: nothing is learned twice."""
    await partitions.ensure_partitions(database, now_ms())
    writer, shown = EventWriter(database, window_s=1800.0), event()
    await writer.write([shown])
    await chunks.note_window(database, 0.0)
    assert len(await _next(database)) == 1
    await writer.write([_flagged(shown)])
    assert await quarantine.release(database, "token", "test") == 1
    chunk = await _next(database)
    assert (len(chunk), len(chunk.late)) == (0, 1)
    await writer.close()
