"""Writing events: many requests share one transaction, and a repeat is harmless.

`write` answers after the commit. While one transaction commits the next batch gathers, so under
load a batch grows and the cost of a commit is shared by more requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from app.storage import partitions
from app.storage.engine import Database, at, translate
from app.storage.errors import BufferFull, ConstraintBroken, DatabaseUnavailable
from models.types import Event

Outcome = Literal["accepted", "duplicate", "too_old"]

_BATCH = 5000
"""Events of one transaction: more gain nothing and make everyone in it wait longer."""

_STAGE = """
CREATE TEMPORARY TABLE staged (
    ordinal integer, decided_at timestamptz, decision_id uuid, slot smallint, type text,
    ad_id bigint, snapshot_id uuid, catalog_version bigint, price_micros bigint,
    propensity real, placement text, features bytea
) ON COMMIT DELETE ROWS
"""

# In the order of the key: two processes that insert the same keys wait for each other, and never
# in a circle.
_INSERT = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
SELECT decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features
FROM staged ORDER BY decided_at, decision_id, slot, type
ON CONFLICT DO NOTHING
"""

# Asked only when fewer rows were inserted than staged, which is rare: what was there before has
# the id of another transaction.
_DUPLICATES = """
SELECT staged.ordinal FROM staged JOIN events USING (decided_at, decision_id, slot, type)
WHERE events.xid <> pg_current_xact_id()
"""


@dataclass(frozen=True, slots=True)
class _Request:
    events: Sequence[Event]
    answer: asyncio.Future[list[Outcome]]


class EventWriter:
    """Writes events in group commits over one session connection; one for each process.

    `buffer`: how many events may wait; `linger_s`: how long a first event waits for company;
    `timeout_s`: after how long a transaction is given up. Call `close` at the end.
    """

    def __init__(
        self,
        database: Database,
        buffer: int = 50_000,
        *,
        linger_s: float = 0.002,
        timeout_s: float = 10.0,
    ) -> None:
        self._database, self._buffer = database, buffer
        self._linger_s, self._timeout_s = linger_s, timeout_s
        self._waiting = 0
        self._requests: list[_Request] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._days: set[Any] = set()
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many events have been given and not yet answered."""
        return self._waiting

    async def write(self, events: Sequence[Event]) -> list[Outcome]:
        """Write events and say after the commit what became of each.

        `too_old`: its day has been dropped. Raises `BufferFull` at once when too much waits, and
        `DatabaseUnavailable` when it is not known whether the events are stored: repeat the call,
        what was stored is a duplicate then.
        """
        if not events:
            return []
        if self._waiting + len(events) > self._buffer:
            raise BufferFull(self._waiting, self._buffer)
        if self._closing:
            raise DatabaseUnavailable("this process is about to stop; repeat on another")
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        request = _Request(events, asyncio.get_running_loop().create_future())
        self._waiting += len(events)
        self._requests.append(request)
        self._wake.set()
        return await request.answer

    async def close(self) -> None:
        """Write what waits, then close the connection."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._disconnect()

    async def _run(self) -> None:
        while requests := await self._next_batch():
            await self._answer(requests)
            self._waiting -= sum(len(request.events) for request in requests)

    async def _next_batch(self) -> list[_Request]:
        """The requests of the next transaction; empty when the writer closes."""
        await self._wake.wait()
        if not self._closing:
            await asyncio.sleep(self._linger_s)
        taken, size = 0, 0
        while taken < len(self._requests) and (size < _BATCH or taken == 0):
            size += len(self._requests[taken].events)
            taken += 1
        batch, self._requests = self._requests[:taken], self._requests[taken:]
        if not self._requests and not self._closing:
            self._wake.clear()
        return batch

    async def _answer(self, requests: list[_Request]) -> None:
        """One transaction for all; when a value in it cannot be stored, one for each."""
        try:
            outcomes = await self._commit([event for r in requests for event in r.events])
        except ConstraintBroken as error:
            if len(requests) == 1:
                return _fail(requests, error)
            for request in requests:
                await self._answer([request])
            return None
        except Exception as error:  # each waiting request gets it, and the writer goes on
            return _fail(requests, error)
        start = 0
        for request in requests:
            stop = start + len(request.events)
            if not request.answer.done():
                request.answer.set_result(outcomes[start:stop])
            start = stop
        return None

    async def _commit(self, events: list[Event]) -> list[Outcome]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._store_again(events)
        except Exception as error:
            known = translate(error)
            if not isinstance(known, ConstraintBroken):
                await self._disconnect()
            if known is None or known is error:
                raise
            raise known from error

    async def _store_again(self, events: list[Event]) -> list[Outcome]:
        """Store; once more with a new look at the partitions when one was dropped meanwhile."""
        try:
            return await self._store(events)
        except asyncpg.CheckViolationError as error:
            if error.constraint_name is not None:  # a real check; a missing partition has no name
                raise
            self._days = set()
            return await self._store(events)

    async def _store(self, events: list[Event]) -> list[Outcome]:
        connection = await self._connected()
        await self._learn_days(connection, events)
        outcomes: list[Outcome] = ["duplicate"] * len(events)
        staged = self._staged(events, outcomes)
        async with connection.transaction():
            await connection.copy_records_to_table("staged", records=staged)
            status = await connection.execute(_INSERT)
            if int(status.rpartition(" ")[2]) < len(staged):
                for row in await connection.fetch(_DUPLICATES):
                    outcomes[row["ordinal"]] = "duplicate"
        return outcomes

    def _staged(self, events: list[Event], outcomes: list[Outcome]) -> list[tuple[Any, ...]]:
        """The rows to copy, the first event of each key; marks them and the too old ones."""
        rows, seen = [], set()
        for ordinal, event in enumerate(events):
            key = (event.decided_ms, event.decision_id, event.slot, event.type)
            if partitions.day_of(event.decided_ms) not in self._days:
                outcomes[ordinal] = "too_old"
            elif key not in seen:
                seen.add(key)
                outcomes[ordinal] = "accepted"
                rows.append(_row(ordinal, event))
        return rows

    async def _learn_days(self, connection: Any, events: list[Event]) -> None:
        """Look for partitions that this writer does not know yet, and make those of new days.

        The jobs process makes them ahead; if it has been down for long, no event is lost for it.
        """
        needed = {partitions.day_of(event.decided_ms) for event in events}
        if needed <= self._days:
            return
        self._days = await partitions.days(connection)
        newest = max(self._days, default=None)
        new = [day for day in needed if newest is None or day > newest]
        if new:
            await partitions.create(connection, new)
            self._days |= set(new)

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.raw(command_timeout=self._timeout_s)
            try:
                await connection.execute(_STAGE)
            except BaseException:
                connection.terminate()
                raise
            self._connection, self._days = connection, set()
        return self._connection

    async def _disconnect(self) -> None:
        """Drop the connection: after an error its state is not worth knowing."""
        connection, self._connection, self._days = self._connection, None, set()
        if connection is not None:
            connection.terminate()


def _row(ordinal: int, event: Event) -> tuple[Any, ...]:
    return (
        ordinal,
        at(event.decided_ms),
        event.decision_id,
        event.slot,
        event.type,
        event.ad_id,
        event.snapshot_id,
        event.catalog_version,
        event.price_micros,
        event.propensity,
        event.placement,
        event.features if event.type == "impression" else None,
    )


def _fail(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(error)
