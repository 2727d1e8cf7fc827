"""Stored events lose what is erased: a pass over every partition, a few pages at a time.

A pass sees each partition as it was at one moment, so no row is missed that moves meanwhile; rows
that come later are stored without erased values (`app.storage.events`), once every transaction that
did not know of them has ended. What is written is told apart by its key and by what was read.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from app.storage import copying, partitions
from app.storage.binary_rows import EPOCH_2000_MS, Impressions
from app.storage.engine import Database, at
from models.erasure import Erased
from models.types import Int64s

_PAGES = 4096
"""Of 8 kB: some 150,000 impressions, less than 100 MB of memory."""
_PAGE = 8192
_LOOK_EVERY_S = 0.05

_READ = """
SELECT decided_at, decision_id, slot, ad_id, features FROM {table}
WHERE type = 'impression' AND ctid >= '({first},0)'::tid AND ctid < '({last},0)'::tid
"""

_WRITE = """
UPDATE events SET features = given.after
FROM unnest($1::timestamptz[], $2::uuid[], $3::smallint[], $4::bytea[], $5::bytea[])
    AS given (decided_at, decision_id, slot, before, after)
WHERE events.decided_at = given.decided_at AND events.decision_id = given.decision_id
    AND events.slot = given.slot AND events.type = 'impression'
    AND events.features = given.before
"""


class _Row(NamedTuple):
    """An impression that has an erased value: its key, its features as they are and without it."""

    place: int
    before: bytes
    after: bytes


async def settled(database: Database, patience_s: float = 5.0) -> bool:
    """Wait until every transaction that was running when this was called has ended.

    False if one is still running after `patience_s`: an import, for instance.
    """
    stop_s = time.monotonic() + patience_s
    async with database.session() as connection:
        newest: int = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())")
        while await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())") < newest:
            if time.monotonic() > stop_s:
                return False
            await asyncio.sleep(_LOOK_EVERY_S)
    return True


async def rewrite(database: Database, erased: Erased) -> Counter[int]:
    """Take these values out of all stored events; returns how many events had each.

    Takes about a second for each million of impressions; nothing waits for it meanwhile. Raises
    `DatabaseUnavailable`; what was rewritten by then stays so.
    """
    counts: Counter[int] = Counter()
    for day in await partitions.list_partitions(database):
        before = counts.total()
        await _rewrite_day(database, partitions.name_of(day), erased, counts)
        if counts.total() > before:
            await _vacuum(database, partitions.name_of(day))
    return counts


async def count(database: Database, erased: Erased) -> int:
    """How many stored events have one of these values, by a look at each."""
    total = 0
    for day in await partitions.list_partitions(database):
        async with database.session(command_timeout=None) as connection:
            async for shown in _pages(connection, partitions.name_of(day)):
                total += len(await asyncio.to_thread(_found, shown, erased))
    return total


async def _rewrite_day(
    database: Database, table: str, erased: Erased, counts: Counter[int]
) -> None:
    async with (
        database.session(command_timeout=None) as reading,
        database.session(command_timeout=None) as writing,
    ):
        async for shown in _pages(reading, table):
            rows = await asyncio.to_thread(_found, shown, erased)
            if rows:
                await _write(writing, shown, rows)
                counts.update(value for row in rows for value in _values(row.before, erased))


async def _pages(connection: Any, table: str) -> AsyncIterator[Impressions]:
    """The impressions of one partition as of now, so many pages at a time."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        name = await connection.fetchval("SELECT to_regclass($1)::text", table)
        if name is None:  # retention was faster
            return
        size: int = await connection.fetchval("SELECT pg_relation_size($1::text::regclass)", name)
        for first in range(0, size // _PAGE + 1, _PAGES):
            query = _READ.format(table=name, first=first, last=first + _PAGES)
            yield await copying.impressions(connection, query)


def _found(shown: Impressions, erased: Erased) -> list[_Row]:
    """The impressions that have an erased value."""
    held = shown.features
    rows = ((place, held[place]) for place in _suspects(shown, erased).tolist())
    pairs = ((place, before, erased.blob(before)) for place, before in rows)
    return [_Row(*pair) for pair in pairs if pair[1] is not pair[2]]


def _suspects(shown: Impressions, erased: Erased) -> Int64s:
    """Rows in which a word of eight bytes, counted from the end, is the hash of an erased value."""
    held = shown.features
    words, left = held.words(), np.arange(len(held))
    hit = np.zeros(len(held), np.bool_)
    nth = 1
    while len(left):
        left = left[held.lengths[left] >= 8 * nth]
        starts = held.starts[left] + held.lengths[left] - 8 * nth
        hit[left[erased.places(words[starts])]] = True
        nth += 1
    return np.flatnonzero(hit)


def _values(blob: bytes, erased: Erased) -> set[int]:
    """The erased values that some packed features hold: ids are the words at their end."""
    count = len(blob) // 8
    words = struct.unpack(f"<{count}q", blob[len(blob) - 8 * count :])
    return set(words) & erased.missing.keys()


async def _write(connection: Any, shown: Impressions, rows: list[_Row]) -> None:
    keys = shown.keys
    places = [row.place for row in rows]
    await connection.execute(
        _WRITE,
        [at(EPOCH_2000_MS + int(keys.time_us[place]) // 1000) for place in places],
        [UUID(int=int(keys.high[place]) << 64 | int(keys.low[place])) for place in places],
        [int(keys.slot[place]) for place in places],
        [row.before for row in rows],
        [row.after for row in rows],
    )


async def _vacuum(database: Database, table: str) -> None:
    """Free what the rewritten rows were: few of them would wait for that for very long."""
    async with database.session(command_timeout=None) as connection:
        name = await connection.fetchval("SELECT to_regclass($1)::text", table)
        if name is not None:
            await connection.execute(f"VACUUM {name}")
