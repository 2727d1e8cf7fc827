"""`adscent events import`: a file's events into the database, a day at a time."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from app.storage.engine import Database
from app.storage.event_import import identity, import_day
from jobs.transfer.copy_rows import COLUMNS, HEADER, TRAILER, copied
from jobs.transfer.event_file import EventFile
from jobs.transfer.ledger import Ledger
from jobs.transfer.sources import Rejected
from models.erasure import Erased
from models.schema import Schema

_PIECE = 500_000
"""Events that get one transaction id: a training chunk can be cut between two of them."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file: rows with a fault, events written, and those that were there before.

    `skipped`: events of days that an earlier run had finished. `old`: those written to days before
    `oldest`, which retention drops. `torn`: the ledger could not be read and counted as none.
    """

    written: int
    duplicate: int
    skipped: int
    rejected: Sequence[Rejected]
    old: int = 0
    oldest: date = date.min
    torn: Path | None = None


async def import_file(
    database: Database,
    path: Path,
    schema: Schema,
    ledgers: Path,
    mapping: Path | None = None,
    told: Callable[[int, int], None] | None = None,
    oldest: date = date.min,
) -> Imported:
    """Import a file; run again after an interruption it goes on with the first unfinished day.

    `ledgers`: the folder where it is noted which days are done; `told`: called with the events done
    and all of them; `oldest`: the first day that retention keeps. Raises `LogInvalid`,
    `ConstraintBroken`, `DatabaseUnavailable`.
    """
    with EventFile(path, schema, mapping) as file:
        days = file.days()
        ledger = Ledger.of(ledgers, await identity(database), path)
        total, done = sum(count for _, count in days), 0
        written = duplicate = skipped = old = 0
        for day, count in days:
            if day in ledger.days:
                skipped += count
            else:
                pieces = max(1, round(count / _PIECE))
                lay = partial(_stream, file, day)
                new = await import_day(database, day, COLUMNS, lay, pieces)
                written, duplicate = written + new, duplicate + count - new
                old += new if day < oldest else 0
                ledger.note(day)
            done += count
            if told is not None:
                told(done, total)
        return Imported(written, duplicate, skipped, file.rejected, old, oldest, ledger.torn)


def check_file(
    path: Path, schema: Schema, mapping: Path | None = None, oldest: date = date.min
) -> Imported:
    """What an import would write and reject; writes nothing and needs no database."""
    with EventFile(path, schema, mapping) as file:
        days = file.days()
        old = sum(count for day, count in days if day < oldest)
        return Imported(sum(count for _, count in days), 0, 0, file.rejected, old, oldest)


def write_rejected(rejected: Sequence[tuple[Path, Rejected]], path: Path) -> None:
    """The rows that were not imported as CSV: file, line, field, value, reason."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", *(item.name for item in fields(Rejected))))
        writer.writerows((source, *astuple(one)) for source, one in rejected)


async def _stream(
    file: EventFile, day: date, erased: Erased, ids: Sequence[int]
) -> AsyncIterator[bytes]:
    """One binary COPY; a block is laid out while the database takes the one before.

    Each of the transaction ids is that of one span of time, the lowest that of the first.
    """
    cuts, given = await asyncio.to_thread(file.cuts, day, len(ids)), np.array(ids, np.int64)
    blocks = (
        copied(replace(rows, xid=given[cuts.searchsorted(rows.time_ms)]))
        for rows in file.rows(day, erased)
    )

    def begun() -> asyncio.Task[bytes]:
        return asyncio.create_task(asyncio.to_thread(next, blocks, b""))

    yield HEADER
    following = begun()
    try:
        while block := await following:
            following = begun()
            yield block
    finally:
        await asyncio.wait([following])  # its thread reads the file, which is closed after this
    yield TRAILER
