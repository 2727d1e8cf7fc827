"""Many events at once, from a file: a day without events is built aside and attached whole.

Rows of a table made in the same transaction need no log of their own, and an index is built over
sorted rows faster than it takes them one by one. A day that has a partition already takes its rows
through a staging table instead, where a repeat is a duplicate.

Training cuts chunks between transaction ids, and a day is one transaction: so its rows get several
ids, this transaction's and later ones that nobody else has. While it runs no chunk comes near any
of them: chunks end below the lowest id that is running.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence
from datetime import date, timedelta
from typing import Any

from app.storage import erasures, partitions
from app.storage.engine import Database
from models.erasure import Erased

Lay = Callable[[Erased, Sequence[int]], AsyncIterable[bytes]]
"""Rows as a binary COPY, without these erased values and with these transaction ids, ascending."""

_DAY_S = 3600.0
_OWN_ID = "SELECT pg_current_xact_id()"

# After a restore to an earlier time the timeline is another: what was imported since is not there.
_IDENTITY = """
SELECT concat_ws('/', system_identifier, timeline_id, pg_database.oid, datname)
FROM pg_control_system(), pg_control_checkpoint(), pg_database
WHERE datname = current_database()
"""


async def identity(database: Database) -> str:
    """What tells this database from any other, of whatever server. Raises `DatabaseUnavailable`."""
    async with database.session() as connection:
        return str(await connection.fetchval(_IDENTITY))


async def import_day(
    database: Database, day: date, columns: Sequence[str], lay: Lay, pieces: int = 1
) -> int:
    """Store one day's events, a binary COPY of these columns, in one transaction.

    `pieces`: how many transaction ids `lay` is given. Returns how many events were new. For a day
    without partition no two rows may have one key. Raises `ConstraintBroken`,
    `DatabaseUnavailable`.
    """
    async with database.session(command_timeout=_DAY_S) as connection, connection.transaction():
        # With an id from before the look at the erasures: who rewrites the stored events for a
        # later one waits for transactions that are that old.
        ids = [await connection.fetchval(_OWN_ID), *await _later_ids(database, pieces - 1)]
        erased = await erasures.read_over(connection)
        await partitions.lock(connection)
        if day in await partitions.days(connection):
            return await _merge(connection, columns, lay(erased, ids))
        return await _build(connection, day, columns, lay(erased, ids))


async def _later_ids(database: Database, count: int) -> list[int]:
    """Ids of so many transactions that do nothing."""
    if not count:
        return []
    async with database.session() as connection:
        return [await connection.fetchval(_OWN_ID) for _ in range(count)]


async def _merge(connection: Any, columns: Sequence[str], rows: AsyncIterable[bytes]) -> int:
    listed = ", ".join(columns)
    await connection.execute(
        f"CREATE TEMPORARY TABLE imported ON COMMIT DROP AS SELECT {listed} FROM events LIMIT 0"  # noqa: S608
    )
    await connection.copy_to_table("imported", source=rows, columns=columns, format="binary")
    status: str = await connection.execute(
        f"INSERT INTO events ({listed}) SELECT {listed} FROM imported"  # noqa: S608
        " ORDER BY decided_at, decision_id, slot, type ON CONFLICT DO NOTHING"
    )
    return int(status.rpartition(" ")[2])


async def _build(
    connection: Any, day: date, columns: Sequence[str], rows: AsyncIterable[bytes]
) -> int:
    """A table without indexes, its rows, its indexes; then it becomes the day's partition."""
    name = partitions.name_of(day)
    start, stop = (f"{one.isoformat()} 00:00:00+00" for one in (day, day + timedelta(days=1)))
    await connection.execute(
        f"CREATE TABLE {name} (LIKE events INCLUDING ALL EXCLUDING INDEXES,"
        f" CONSTRAINT {name}_day CHECK (decided_at >= '{start}' AND decided_at < '{stop}'))"
    )
    status: str = await connection.copy_to_table(
        name, source=rows, columns=columns, format="binary"
    )
    await connection.execute(
        f"ALTER TABLE {name} ADD PRIMARY KEY (decided_at, decision_id, slot, type)"
    )
    await connection.execute(
        f"ALTER TABLE events ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{stop}')"
    )
    await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT {name}_day")
    return int(status.rpartition(" ")[2])
