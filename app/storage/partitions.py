"""The daily partitions of `events`: made ahead, dropped whole, never past a cursor."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from app.storage.engine import Database

_LOCK = 0x41445343_50415254  # "ADSCPART": makers and droppers of partitions take turns
_PREFIX = "events_"

_LIST = """
SELECT child.relname FROM pg_inherits
JOIN pg_class child ON child.oid = inhrelid
WHERE inhparent = 'events'::regclass
"""


# After a restore into another cluster ids say nothing, until the cursors are rebased.
_NEEDED = """
SELECT EXISTS (
    SELECT FROM {day} AS event, training_cursor
    WHERE event.type = 'impression' AND event.xid >= impressions_xid
) OR EXISTS (
    SELECT FROM {day} AS event, statistics_cursor
    WHERE event.quarantined_by IS NULL AND event.xid >= statistics_cursor.xid
) OR EXISTS (
    SELECT FROM training_cursor, statistics_cursor, pg_control_system() AS present
    WHERE training_cursor.system_identifier <> present.system_identifier
        OR statistics_cursor.system_identifier <> present.system_identifier
)
"""

DAY_MS = 86_400_000


def day_of(ms: int) -> date:
    """The UTC day of a time in milliseconds since 1970."""
    return day_numbered(ms // DAY_MS)


def day_numbered(number: int) -> date:
    """The day that many days after 1970-01-01."""
    return date.fromordinal(_DAY_ZERO + number)


def number_of(day: date) -> int:
    """How many days after 1970-01-01 a day is."""
    return day.toordinal() - _DAY_ZERO


_DAY_ZERO = date(1970, 1, 1).toordinal()


async def list_partitions(database: Database) -> list[date]:
    """The days that have a partition, in order."""
    async with database.session() as connection:
        return sorted(await days(connection))


async def ensure_partitions(database: Database, now_ms: int, ahead: int = 7) -> list[date]:
    """Make the partitions of yesterday, today and `ahead` days to come; returns the new ones.

    Yesterday is there for the events of a token that was sealed before midnight.
    """
    today = day_of(now_ms)
    async with database.session() as connection:
        wanted = [today + timedelta(days=offset) for offset in range(-1, ahead + 1)]
        return await create(connection, wanted)


async def drop_partitions(database: Database, before: date) -> list[date]:
    """Drop the days before `before`, except those with events that are still to be accounted for:
    impressions that are to be trained, events of any type that the statistics are to count.

    Gives up after two seconds when a long reader is in the way: the next run comes soon, and
    everyone who writes events would queue behind the wait.
    """
    async with database.session() as connection:
        old = sorted(day for day in await days(connection) if day < before)
        return [day for day in old if await _drop(connection, day)]


async def days(connection: Any) -> set[date]:
    """The days that have a partition, read over a session connection."""
    names = [row["relname"] for row in await connection.fetch(_LIST)]
    return {_day(name) for name in names}


async def create(connection: Any, wanted: Iterable[date]) -> list[date]:
    """Make the partitions of these days that are missing, over a session connection.

    Attached rather than created as partitions: that needs a lock which lets readers and writers
    of the other partitions go on.
    """
    async with connection.transaction():
        await lock(connection)
        missing = sorted(set(wanted) - await days(connection))
        for day in missing:
            await connection.execute(f"CREATE TABLE {name_of(day)} (LIKE events INCLUDING ALL)")
            await connection.execute(
                f"ALTER TABLE events ATTACH PARTITION {name_of(day)}"
                f" FOR VALUES FROM ('{_start(day)}') TO ('{_start(day + timedelta(days=1))}')"
            )
    return missing


async def lock(connection: Any) -> None:
    """Let nobody else make or drop a partition until the present transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def _drop(connection: Any, day: date) -> bool:
    """Drop a day if nothing of it is still needed; whether it was."""
    if not await _is_accounted_for(connection, day):
        return False
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        await lock(connection)
        # The lock that the drop takes anyway. From here on nobody writes an event, so one that was
        # acknowledged since the first look is found by the second.
        await connection.execute("LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE")
        if not await _is_accounted_for(connection, day):
            return False
        await connection.execute(f"DROP TABLE {name_of(day)}")
    return True


async def _is_accounted_for(connection: Any, day: date) -> bool:
    needed = await connection.fetchval(_NEEDED.format(day=name_of(day)))
    return not needed


def name_of(day: date) -> str:
    """The name of a day's partition."""
    return f"{_PREFIX}{day:%Y%m%d}"


def _day(name: str) -> date:
    return datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC).date()


def _start(day: date) -> str:
    return f"{day.isoformat()} 00:00:00+00"
