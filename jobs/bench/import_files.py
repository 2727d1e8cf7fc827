"""`adscent bench import`: rows of a file a second, against a plain COPY of the events they become.

Both end in the same place: partitions with their key and indexes, committed with fsync.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
from rich.console import Console

from app.storage import partitions
from app.storage.engine import Database
from jobs.bench.deployment import BenchmarkBroken, deployed
from jobs.bench.ingest_server import below, postgres, used_ms
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.train import FEATURES
from jobs.transfer.copy_rows import COLUMNS
from jobs.transfer.importing import import_file
from models.schema import Schema, load_schema

TARGET: Target = ("value at least", 150_000.0)
_LISTED = ", ".join(COLUMNS)
_ADS = 10

# Values as a log has them, drawn by a hash of the row's number: a tenth was clicked.
_FILE = """
COPY (
    SELECT strftime(make_timestamp(({start} + i * {days} * 86400000 // {rows}) * 1000),
            '%Y-%m-%dT%H:%M:%S.%gZ') AS decided_at,
        1 + h % 2000 AS ad_id, (h // 7 % 10 = 0)::INT AS clicked,
        ['home', 'list', 'detail'][1 + h // 11 % 3] AS placement,
        'g' || (h // 13 % 40) AS "user.geo", 'd' || (h // 17 % 6) AS "user.device",
        h // 19 % 24 AS "user.hour", 'a' || (h // 23 % 8) AS "user.age",
        'i' || (h // 29 % 30) || '|i' || (h // 31 % 30) AS "user.interest",
        1 + h % 2000 AS "ad.creative", h % 2000 // 8 AS "ad.campaign",
        h % 2000 // 40 AS "ad.advertiser", 'c' || (h % 50) AS "ad.category",
        'f' || (h % 3) AS "ad.format"
    FROM (SELECT i, (hash(i + {seed}) >> 2)::BIGINT AS h FROM range({rows}) AS t(i))
) TO '{path}' (FORMAT {format}, HEADER)
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """`rows` of each file, over so many `days`."""

    rows: int = 1_000_000
    days: int = 2
    rounds: int = 5


QUICK = Sizes(rows=100_000, rounds=2)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` unless every row of a file is in the table.
    """
    console = Console()
    chosen = sizes or (QUICK if quick else Sizes())
    machine = describe()
    with console.status("files on their way"):
        measured = asyncio.run(_measured(chosen, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, **asdict(chosen)}
    made = Report("bench import", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    schema = load_schema(FEATURES)
    found: dict[str, Measure] = {}
    async with deployed(seed, _ADS, 1, FEATURES) as deployment:
        with tempfile.TemporaryDirectory(prefix="adscent-bench-import-") as folder:
            database = deployment.context.database
            server = await postgres(database)
            rig = _Rig(database, server, schema, Path(folder), sizes, seed)
            for form in ("csv", "parquet"):
                found |= _measures(
                    form, [await rig.round(form) for _ in range(sizes.rounds)], sizes
                )
    return found


@dataclass(frozen=True, slots=True)
class _Cost:
    """Seconds by the clock, and of the processor for this program and for PostgreSQL."""

    seconds: float
    program: float
    database: float


def _measures(form: str, rounds: list[tuple[_Cost, _Cost]], sizes: Sizes) -> dict[str, Measure]:
    rows = sizes.rows
    about = (
        f"rows of a {form} file of {rows:,} rows and {sizes.days} new days, a tenth of them with a"
        " click; baseline: what they became, by a plain binary COPY into empty partitions"
    )
    return {
        f"import_{form}": measure(
            [rows / taken.seconds for taken, _ in rounds],
            "rows/s",
            about,
            baseline=[rows / copied.seconds for _, copied in rounds],
            target=TARGET if form == "csv" and rows >= Sizes().rows else None,
        ),
        f"import_{form}_program": measure(
            [1e6 * taken.program / rows for taken, _ in rounds],
            "µs",
            f"processor time of the importing program for each of the {about}",
            baseline=[1e6 * max(copied.program, 1e-9) / rows for _, copied in rounds],
        ),
        f"import_{form}_database": measure(
            [1e6 * taken.database / rows for taken, _ in rounds],
            "µs",
            f"processor time of PostgreSQL for each of the {about}",
            baseline=[1e6 * max(copied.database, 1e-9) / rows for _, copied in rounds],
        ),
    }


@dataclass(slots=True)
class _Rig:
    """Imports files of days that have no partition yet, and copies what they became."""

    database: Database
    server: int
    schema: Schema
    folder: Path
    sizes: Sizes
    seed: int
    used: int = 0

    async def round(self, form: str) -> tuple[_Cost, _Cost]:
        """What the import of a new file takes, and the plain COPY of what it became."""
        self.used += 1
        first = datetime.now(UTC).date() - timedelta(days=30)
        days = [first + timedelta(days=one) for one in range(self.sizes.days)]
        path = await asyncio.to_thread(self._file, form, first)
        started = self._used()
        done = await import_file(self.database, path, self.schema, self.folder / "ledgers")
        taken = self._since(started)
        if done.rejected or done.written < self.sizes.rows:
            raise BenchmarkBroken(f"of {self.sizes.rows} rows {done.written} were written")
        rows = [await self._leaving(day) for day in days]
        await self._emptied(days)
        started = self._used()
        await self._plain_copy(days, rows)
        copied = self._since(started)
        await self._emptied(days, again=False)
        path.unlink()
        return taken, copied

    def _file(self, form: str, first: date) -> Path:
        path = self.folder / f"{self.used}.{form}"
        start = partitions.number_of(first) * partitions.DAY_MS
        query = _FILE.format(
            start=start,
            days=self.sizes.days,
            rows=self.sizes.rows,
            seed=self.seed + self.used,
            path=path,
            format=form,
        )
        with duckdb.connect() as database:
            database.execute(query if form == "csv" else query.replace(", HEADER", ""))
        return path

    async def _leaving(self, day: date) -> list[bytes]:
        """One day's rows as a binary COPY."""
        parts: list[bytes] = []

        async def gather(part: bytes) -> None:
            parts.append(part)

        query = f"SELECT {_LISTED} FROM {partitions.name_of(day)}"  # noqa: S608 - names of ours
        async with self.database.session(command_timeout=None) as connection:
            await connection.copy_from_query(query, output=gather, format="binary")
        return parts

    async def _emptied(self, days: list[date], again: bool = True) -> None:
        """Drop the days; make their partitions anew, if so, and leave no work behind."""
        async with self.database.session(command_timeout=None) as connection:
            for day in days:
                await connection.execute(f"DROP TABLE {partitions.name_of(day)}")
            if again:
                await partitions.create(connection, days)
            await connection.execute("CHECKPOINT")

    def _used(self) -> _Cost:
        database_ms = used_ms([self.server, *below(self.server)], ended=True)
        return _Cost(time.perf_counter(), time.process_time(), database_ms / 1000)

    def _since(self, before: _Cost) -> _Cost:
        now = self._used()
        return _Cost(
            now.seconds - before.seconds,
            now.program - before.program,
            now.database - before.database,
        )

    async def _plain_copy(self, days: list[date], rows: list[list[bytes]]) -> None:
        async with self.database.session(command_timeout=None) as connection:
            for day, parts in zip(days, rows, strict=True):
                await connection.copy_to_table(
                    partitions.name_of(day), source=_stream(parts), columns=COLUMNS, format="binary"
                )


async def _stream(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
