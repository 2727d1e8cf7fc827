"""Events that come late, early, in another order, or alone: labels are right whatever the order."""

from __future__ import annotations

import pytest
from msgspec import structs

from app.storage import chunks
from app.storage.chunks import Chunk
from app.storage.engine import Database
from app.storage.events import EventWriter
from tests.integration.making import click_on, event, now_ms

pytestmark = pytest.mark.anyio


async def next_chunk(database: Database) -> Chunk:
    """Record a horizon, read a chunk without any attribution window and move the cursor."""
    await chunks.record_horizon(database)
    chunk = await chunks.read_chunk(database, 0.0, 1000)
    async with database.begin() as connection:
        await chunks.advance(connection, chunk.start, chunk.end)
    return chunk


async def test_a_click_may_come_before_its_impression(
    writer: EventWriter, database: Database
) -> None:
    """Also one that an earlier chunk has looked past: the impression is a clicked one."""
    shown = event()
    await writer.write([click_on(shown), event()])
    assert (await next_chunk(database)).label.tolist() == [0]
    await writer.write([shown])
    found = await next_chunk(database)
    assert (found.label.tolist(), len(found.late)) == ([1], 0)


async def test_a_click_whose_impression_never_came_is_not_learned(
    writer: EventWriter, database: Database
) -> None:
    """It is stored, and in no chunk: neither as a label nor as a late click, however long."""
    alone = event("click")
    assert await writer.write([alone]) == ["accepted"]
    for _ in range(2):
        await writer.write([event()])
        found = await next_chunk(database)
        assert (found.label.tolist(), len(found.late)) == ([0], 0)


async def test_a_click_of_another_slot_labels_nothing_else(
    writer: EventWriter, database: Database
) -> None:
    """Two ads of one decision differ in their slot alone."""
    shown = event()
    other = structs.replace(shown, slot=1, features=b"other")
    await writer.write([shown, other, structs.replace(click_on(shown), slot=1)])
    found = await next_chunk(database)
    assert list(zip(found.features, found.label.tolist(), strict=True)) == [
        (b"packed", 0),
        (b"other", 1),
    ]


async def test_what_was_decided_earlier_and_comes_later_is_in_the_next_chunk(
    writer: EventWriter, database: Database
) -> None:
    """Each chunk is in the order of decisions, and no impression is behind the cursor."""
    now = now_ms()
    given = [event(decided_ms=now + n, features=bytes([n])) for n in range(6)]
    for n in (5, 1, 3):
        await writer.write([given[n]])
    assert list((await next_chunk(database)).features) == [bytes([n]) for n in (1, 3, 5)]
    for n in (4, 0, 2):
        await writer.write([given[n]])
    assert list((await next_chunk(database)).features) == [bytes([n]) for n in (0, 2, 4)]


async def test_conversions_and_closes_are_no_labels(
    writer: EventWriter, database: Database
) -> None:
    """Before their impression, after it, or alone."""
    shown = event()
    kinds = [structs.replace(click_on(shown), type=kind) for kind in ("conversion", "close")]
    await writer.write([kinds[0]])
    await writer.write([shown, kinds[1], event("conversion"), event("close")])
    found = await next_chunk(database)
    assert (found.label.tolist(), len(found.late)) == ([0], 0)


async def test_a_repeated_late_click_is_late_once(writer: EventWriter, database: Database) -> None:
    """Browsers send again; what was stored is a duplicate and corrects nothing twice."""
    shown = event()
    await writer.write([shown])
    await next_chunk(database)
    for expected in (1, 0, 0):
        await writer.write([click_on(shown)])
        assert len((await next_chunk(database)).late) == expected


async def test_events_of_yesterday_are_taken_today(writer: EventWriter, database: Database) -> None:
    """A token that was sealed before midnight is good after it; a day that is gone is too old."""
    yesterday = event(decided_ms=now_ms() - 86_400_000)
    gone = event(decided_ms=now_ms() - 40 * 86_400_000)
    outcomes = await writer.write([yesterday, click_on(yesterday), gone])
    assert outcomes == ["accepted", "accepted", "too_old"]
    found = await next_chunk(database)
    assert (found.time_ms.tolist(), found.label.tolist()) == ([yesterday.decided_ms], [1])
