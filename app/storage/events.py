"""Writing events: many requests share one transaction, and a repeat is harmless.

`write` answers after the commit. While one transaction commits the next batch gathers, so under
load a batch grows and the cost of a commit is shared by more requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import asyncpg
import msgspec

from app.storage import erasures, event_rows, partitions
from app.storage.engine import Database, at
from app.storage.errors import BufferFull, ConstraintBroken, DatabaseUnavailable
from app.storage.translation import translate
from models.erasure import NOTHING
from models.types import Event

Outcome = Literal["accepted", "duplicate", "too_old"]

_BATCH = 5000
"""Events of one transaction: more gain nothing and make everyone in it wait longer."""

_AT_ONCE = 500
"""Rows of one write to the database."""

_STORED = ", ".join(name for name in event_rows.COLUMNS if name != "ordinal")

_STAGE = f"""
CREATE TEMPORARY TABLE staged (
    {", ".join(f"{name} {kind}" for name, kind in event_rows.COLUMNS.items())}
) ON COMMIT DELETE ROWS
"""

# In the order of the key: two processes that insert the same keys wait for each other, and never
# in a circle. Nothing is inserted when a value was erased that the rows may still have.
_INSERT = f"""
INSERT INTO events ({_STORED}) SELECT {_STORED} FROM staged
WHERE NOT EXISTS (SELECT FROM erasures WHERE version > $1)
ORDER BY decided_at, decision_id, slot, type
ON CONFLICT DO NOTHING
"""  # noqa: S608 - the names are those of the columns

_ERASED_SINCE = "SELECT EXISTS (SELECT FROM erasures WHERE version > $1)"

# Asked only when fewer rows were inserted than staged, which is rare: what was there before has
# the id of another transaction.
_DUPLICATES = """
SELECT staged.ordinal FROM staged JOIN events USING (decided_at, decision_id, slot, type)
WHERE events.xid <> pg_current_xact_id()
"""

# An impression young enough that no chunk has read it yet is set aside with its click, or it would
# be learned as one without a click. An older one stays: learned twice after a release, it would
# count twice.
# Those of them that counted leave an entry by which the statistics take them back.
_SET_ASIDE = """
WITH found AS (UPDATE events SET quarantined_by = given.rule
FROM unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::text[])
    AS given (decided_at, decision_id, slot, rule)
WHERE events.decided_at = given.decided_at AND events.decision_id = given.decision_id
    AND events.slot = given.slot AND events.quarantined_by IS NULL
    AND (type = 'click' OR (type = 'impression' AND received_at > (
        SELECT now() - make_interval(secs => least($5, coalesce(window_s, $5)) - $6)
        FROM training_cursor)))
    AND (SELECT system_identifier FROM training_cursor)
        = (SELECT system_identifier FROM pg_control_system())
RETURNING events.*)
INSERT INTO set_aside (stored_xid, decided_at, ad_id, placement, snapshot_id, catalog_version,
    type, price_micros, value_micros)
SELECT xid, decided_at, ad_id, placement, snapshot_id, catalog_version, type, price_micros,
    value_micros FROM found
"""
_MARGIN_S = 60.0
"""More than a transaction of a writer can take."""


class _ErasedMeanwhile(Exception):
    """A value was erased after this writer last looked: what was laid out may still have it."""


@dataclass(frozen=True, slots=True)
class _Request:
    events: Sequence[Event]
    answer: asyncio.Future[list[Outcome]]


class EventWriter:
    """Writes events in group commits over one session connection; one for each process.

    `buffer`: how many events may wait; `linger_s`: how long a first event waits for company;
    `timeout_s`: after how long a transaction is given up; `window_s`: the attribution window,
    before whose end no impression is learned; `told_erased`: called for each event from which an
    erased value is taken. Call `close` at the end.
    """

    def __init__(
        self,
        database: Database,
        buffer: int = 50_000,
        *,
        linger_s: float = 0.002,
        timeout_s: float = 10.0,
        window_s: float = 1800.0,
        told_erased: Callable[[], object] = lambda: None,
    ) -> None:
        self._database, self._buffer = database, buffer
        self._window_s = window_s
        self._linger_s, self._timeout_s = linger_s, timeout_s
        self._waiting = 0
        self._requests: list[_Request] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._days: set[int] = set()
        self._erased = NOTHING
        self._told_erased = told_erased
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
        """Store; once more with a new look at the partitions when one was dropped meanwhile, and as
        often as values were erased that these events may have.
        """
        looked_again = False
        while True:
            try:
                return await self._store(events)
            except _ErasedMeanwhile:
                self._erased = await erasures.read_over(self._connection, self._erased)
            except asyncpg.CheckViolationError as error:
                # A real check has a name; a missing partition has none.
                if error.constraint_name is not None or looked_again:
                    raise
                self._days, looked_again = set(), True

    async def _store(self, events: list[Event]) -> list[Outcome]:
        connection = await self._connected()
        await self._learn_days(connection, events)
        outcomes: list[Outcome] = ["duplicate"] * len(events)
        rows = self._rows(events, outcomes)
        flagged = [event for event in events if event.quarantined_by is not None]
        if not rows and not flagged:
            return outcomes
        async with connection.transaction():
            await connection.copy_to_table("staged", source=_stream(rows), format="binary")
            status = await connection.execute(_INSERT, self._erased.version)
            if int(status.rpartition(" ")[2]) < len(rows):
                if await connection.fetchval(_ERASED_SINCE, self._erased.version):
                    raise _ErasedMeanwhile
                for row in await connection.fetch(_DUPLICATES):
                    outcomes[row["ordinal"]] = "duplicate"
            if flagged:
                await self._set_aside(connection, flagged)
        return outcomes

    async def _set_aside(self, connection: Any, flagged: list[Event]) -> None:
        """Quarantine what is stored already of the decided ads whose clicks broke a rule."""
        await connection.execute(
            _SET_ASIDE,
            [at(event.decided_ms) for event in flagged],
            [event.decision_id for event in flagged],
            [event.slot for event in flagged],
            [event.quarantined_by for event in flagged],
            *(self._window_s, _MARGIN_S),
        )

    def _rows(self, events: list[Event], outcomes: list[Outcome]) -> list[bytes]:
        """The rows to copy, the first event of each key; marks them and the too old ones."""
        rows, seen = [], set()
        for ordinal, event in enumerate(events):
            if event.decided_ms // partitions.DAY_MS not in self._days:
                outcomes[ordinal] = "too_old"
                continue
            key, row = event_rows.row_of(ordinal, self._without_erased(event))
            if key not in seen:
                seen.add(key)
                outcomes[ordinal] = "accepted"
                rows.append(row)
        return rows

    def _without_erased(self, event: Event) -> Event:
        """The event as it may be stored: a token in flight may hold a value that is erased."""
        if not self._erased or event.type != "impression":
            return event
        features = self._erased.blob(event.features)
        if features is event.features:
            return event
        self._told_erased()
        return msgspec.structs.replace(event, features=features)

    async def _learn_days(self, connection: Any, events: list[Event]) -> None:
        """Look for partitions that this writer does not know yet, and make those of new days.

        The jobs process makes them ahead; if it has been down for long, no event is lost for it.
        """
        needed = {event.decided_ms // partitions.DAY_MS for event in events}
        if needed <= self._days:
            return
        present = await partitions.days(connection)
        # Older days that are missing were dropped. An import may have made days far ahead.
        newest = min(max(present, default=date.min), datetime.now(UTC).date() - timedelta(1))
        missing = {partitions.day_numbered(number) for number in needed} - present
        new = sorted(day for day in missing if day > newest)
        if new:
            await partitions.create(connection, new)
        self._days = {partitions.number_of(day) for day in present.union(new)}

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.raw(command_timeout=self._timeout_s)
            try:
                await connection.execute(_STAGE)
                self._erased = await erasures.read_over(connection, self._erased)
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


async def _stream(rows: list[bytes]) -> AsyncIterator[bytes]:
    """The rows as one binary COPY, in pieces that are worth a write each."""
    yield event_rows.HEADER
    for start in range(0, len(rows), _AT_ONCE):
        yield b"".join(rows[start : start + _AT_ONCE])
    yield event_rows.TRAILER


def _fail(requests: list[_Request], error: Exception) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(error)
