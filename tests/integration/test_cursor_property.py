"""Every accepted event is in exactly one chunk, whatever writers do: drawn interleavings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ids import uuid7
from app.storage import chunks, partitions
from app.storage.engine import Database
from tests.integration.making import now_ms

WRITERS = 4
_INSERT = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
VALUES (date_trunc('day', now()), $1, 0, 'impression', 7, $1, 3, 0, 1, '', $2)
ON CONFLICT DO NOTHING
"""
_writer = st.integers(0, WRITERS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _writer),
        st.tuples(st.just("write"), _writer),
        st.tuples(st.just("write and take back"), _writer),
        st.tuples(st.just("commit"), _writer),
        st.tuples(st.just("abort"), _writer),
        st.tuples(st.just("retry"), _writer),
        st.tuples(st.just("horizon"), st.just(0)),
        st.tuples(st.just("chunk"), st.integers(1, 4)),
        st.tuples(st.just("chunk that is lost"), st.integers(1, 4)),
        st.tuples(st.just("chunk while behind"), st.integers(1, 4)),
    ),
    min_size=5,
    max_size=45,
)


@dataclass
class Writer:
    """One session; `open`: the events of its transaction, None between transactions."""

    connection: Any
    open: list[UUID] | None = None
    transaction: Any = None

    async def write(self, event: UUID) -> None:
        """Write an event in the transaction that is open, or a new one."""
        await self.begin()
        assert self.open is not None
        await self.connection.execute(_INSERT, event, event.bytes)
        self.open.append(event)

    async def write_and_take_back(self, event: UUID) -> None:
        """The same in a transaction inside of it, which is rolled back alone."""
        await self.begin()
        inner = self.connection.transaction()
        await inner.start()
        await self.connection.execute(_INSERT, event, event.bytes)
        await inner.rollback()

    async def begin(self) -> None:
        """Begin a transaction unless one is open."""
        if self.open is None:
            self.transaction, self.open = self.connection.transaction(), []
            await self.transaction.start()

    async def end(self, *, commits: bool) -> list[UUID]:
        """End the transaction; the events that were in it."""
        events, self.open = self.open or [], None
        if self.transaction is not None:
            await (self.transaction.commit() if commits else self.transaction.rollback())
        self.transaction = None
        return events


@dataclass
class World:
    """Writers over one database, what was accepted, and what was found in chunks."""

    database: Database
    writers: list[Writer]
    accepted: set[UUID] = field(default_factory=set)
    aborted: list[UUID] = field(default_factory=list)
    found: Counter[bytes] = field(default_factory=Counter)

    async def take(self, step: str, number: int) -> None:
        """One step of an interleaving."""
        if step == "write":
            await self.writers[number].write(uuid7(now_ms()))
        elif step == "write and take back":
            await self.writers[number].write_and_take_back(uuid7(now_ms()))
        elif step == "commit":
            self.accepted |= set(await self.writers[number].end(commits=True))
        elif step == "abort":
            self.aborted += await self.writers[number].end(commits=False)
        elif step == "retry":
            await self._retry(self.writers[number])
        elif step == "horizon":
            await chunks.record_horizon(self.database)
        else:
            await self.read(number, lost="lost" in step, is_behind="behind" in step)

    async def _retry(self, writer: Writer) -> None:
        """Send an event again: one whose transaction failed, or one that was accepted."""
        known = [*self.aborted, *sorted(self.accepted)]
        waited_for = {event for other in self.writers for event in other.open or ()}
        free = [event for event in known if event not in waited_for]
        if free:
            await writer.write(free[0])

    async def read(self, most: int, *, lost: bool = False, is_behind: bool = False) -> bool:
        """Read a chunk and account for it, unless that is lost; whether more was ready."""
        chunk = await chunks.read_chunk(self.database, 0.0, most, is_behind=is_behind)
        if not lost:
            async with self.database.begin() as connection:
                await chunks.advance(connection, chunk.start, chunk.end)
            self.found.update(chunk.features)
        return chunk.is_cut

    async def drain(self) -> None:
        """End all transactions and read what is left."""
        for writer in self.writers:
            self.accepted |= set(await writer.end(commits=True))
        await chunks.record_horizon(self.database)
        while await self.read(1000):
            pass


@asynccontextmanager
async def _writers(database: Database) -> AsyncIterator[list[Writer]]:
    await partitions.ensure_partitions(database, now_ms())
    found = [Writer(await database.raw()) for _ in range(WRITERS)]
    yield found
    for writer in found:
        await writer.connection.close()


def test_every_accepted_event_is_in_exactly_one_chunk(database_url: str) -> None:
    """Writers that commit late, abort, take a part back, and send again; chunks of any size, read
    in between, cut, and read anew where a leader was lost before it recorded one.
    """
    with asyncio.Runner() as runner:
        database = Database(database_url)
        opened = _writers(database)
        writers = runner.run(opened.__aenter__())

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(steps)
        def interleaved(taken: list[tuple[str, int]]) -> None:
            world = World(database, writers)

            async def all_steps() -> None:
                for step, number in taken:
                    await world.take(step, number)
                await world.drain()

            runner.run(all_steps())
            assert world.found == Counter(event.bytes for event in world.accepted)

        interleaved()
        runner.run(opened.__aexit__(None, None, None))
        runner.run(database.close())
