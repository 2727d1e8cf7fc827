"""`adscent bench backlog`: impressions that wait, read chunk by chunk, and the reader's memory.

The reader is a process of its own, so that its peak is of nothing else. It does what a training run
does before it learns: reads a chunk, joins its clicks, unpacks its features, then goes on with the
next one.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from app.storage import chunks, erased_events
from app.storage.engine import Database
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.stored_events import store
from jobs.bench.train import FEATURES
from jobs.retrain import batch_of
from models.erasure import Erased
from models.features import Schema, load_schema

RATE_TARGET: Target = ("value at least", 800_000.0)
MEMORY_TARGET: Target = ("value at most", 1_000.0)
_ADS = 2_000
_AT_ONCE = 200_000
_ROUNDS = 5
_FEW = 1_000_000
_MINUTE_MS = 60_000


@dataclass(slots=True)
class _Pass:
    """All that waited, read once."""

    impressions: int = 0
    seconds: float = 0.0
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """What one reader did: impressions, seconds of each pass, chunks, its highest resident MB; and
    seconds of a plain COPY, and of a pass for an erasure.
    """

    impressions: int
    seconds: list[float]
    processor_seconds: float
    copied_seconds: float
    chunks: int
    peak_mb: float
    erasing_seconds: float = 0.0


def run(report: Path | None, seed: int, rows: int, quick: bool = False) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` unless each impression was in exactly one chunk.
    """
    console = Console()
    machine = describe()
    sizes = [200_000] if quick else sorted({min(rows, _FEW), rows})
    measured: dict[str, Measure] = {}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("impressions stored", total=sum(sizes))
        found = asyncio.run(_measured(sizes, seed, partial(progress.advance, task)))
    for size, read in found.items():
        measured |= _measures(size, read)
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "rows": max(sizes)}
    made = Report("bench backlog", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


async def _measured(sizes: list[int], seed: int, told: Callable[[int], object]) -> dict[int, _Read]:
    found = {}
    for size in sizes:  # a database of its own each: a reader starts at the beginning
        async with deployed(seed, _ADS, min(size, _AT_ONCE), FEATURES) as deployment:
            await _fill(deployment, size, seed, told)
            database = deployment.context.database
            read = await asyncio.to_thread(_read_apart, database.url)
            found[size] = replace(read, erasing_seconds=await _erasing(database))
        if found[size].impressions != size:
            raise BenchmarkBroken(f"of {size} impressions {found[size].impressions} were read")
    return found


async def _fill(
    deployment: Deployment, size: int, seed: int, told: Callable[[int], object]
) -> None:
    """Store so many impressions of the last hour, a tenth of them with a click."""
    database, snapshot_id = deployment.context.database, await deployment.served()
    start_ms = deployment.context.clock() - 60 * _MINUTE_MS
    for first in range(0, size, _AT_ONCE):
        count = min(_AT_ONCE, size - first)
        times = start_ms + (np.arange(first, first + count) * 60 * _MINUTE_MS) // size
        label = (np.arange(count) % 10 == 0).astype(np.float32)
        part = replace(deployment.events.rows(0, count), time_ms=times, label=label)
        await store(database, part, snapshot_id, seed=seed + first)
        told(count)
    async with database.session(command_timeout=None) as connection:
        await connection.execute("ANALYZE events")
        await connection.execute("CHECKPOINT")
    await chunks.record_horizon(database)


async def _erasing(database: Database) -> float:
    """Seconds of a pass over all events for the values of an erasure, which none of them has."""
    started = time.perf_counter()
    await erased_events.rewrite(database, Erased({1: 2, 3: 4}, 1))
    return time.perf_counter() - started


def _read_apart(url: str) -> _Read:
    """Read everything in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_reader, args=(url, theirs))
    process.start()
    theirs.close()
    try:
        found: _Read = ours.recv()
    except EOFError as error:
        raise BenchmarkBroken("the reading process ended with an error, see above") from error
    finally:
        process.join()
    return found


def _reader(url: str, answer: Connection) -> None:
    answer.send(asyncio.run(_read_all(url)))


async def _read_all(url: str) -> _Read:
    """Everything once, chunk by chunk; what fits into one chunk several times before."""
    database, schema = Database(url, pool=1), load_schema(FEATURES)
    used = time.process_time()
    passes: list[_Pass] = []
    while not passes or (passes[-1].chunks == 1 and len(passes) < _ROUNDS):
        passes.append(await _pass(database, schema))
    used, peak_mb = time.process_time() - used, _peak_mb()
    copied = await _plain_copy(database)
    await database.close()
    last = passes[-1]
    seconds = [one.seconds for one in passes]
    return _Read(last.impressions, seconds, used / len(passes), copied, last.chunks, peak_mb)


async def _pass(database: Database, schema: Schema) -> _Pass:
    """Read on until nothing waits. The cursor moves where more is behind it."""
    made = _Pass()
    is_cut = False
    while not made.chunks or is_cut:
        started = time.perf_counter()
        chunk = await chunks.read_chunk(database, 0.0, is_behind=is_cut)
        made.impressions += len(await asyncio.to_thread(batch_of, chunk, schema))
        made.seconds += time.perf_counter() - started
        made.chunks, is_cut = made.chunks + 1, chunk.is_cut
        if is_cut:
            async with database.begin() as connection:
                await chunks.advance(connection, chunk.start, chunk.end)
        del chunk
    return made


async def _plain_copy(database: Database) -> float:
    """Seconds of a COPY of the same columns of all impressions that nobody looks at."""

    async def drop(_: bytes) -> None:
        return

    query = "SELECT decided_at, decision_id, slot, ad_id, features FROM events WHERE features <> ''"
    async with database.session(command_timeout=None) as connection:
        started = time.perf_counter()
        await connection.copy_from_query(query, output=drop, format="binary")
        return time.perf_counter() - started


def _peak_mb() -> float:
    """The highest resident memory of this process so far, in MB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def _measures(size: int, read: _Read) -> dict[str, Measure]:
    about = f"{size:,} impressions that wait, in {read.chunks} chunks"
    is_judged = size >= _FEW
    return {
        f"read_{size}": measure(
            [read.impressions / seconds for seconds in read.seconds],
            "rows/s",
            f"{about}: read from the table, clicks joined, in arrays; baseline: a COPY of the same"
            " columns that nobody looks at",
            baseline=[read.impressions / read.copied_seconds] * len(read.seconds),
            target=RATE_TARGET if is_judged else None,
        ),
        f"processor_{size}": measure(
            [1e6 * read.processor_seconds / read.impressions],
            "µs",
            f"processor time of the reading process for one of {about}",
        ),
        f"memory_{size}": measure(
            [read.peak_mb],
            "MB",
            f"highest resident memory of the process that reads {about}",
            target=MEMORY_TARGET if is_judged else None,
        ),
        f"erasing_{size}": measure(
            [read.impressions / read.erasing_seconds],
            "rows/s",
            f"{size:,} impressions looked through for erased values; baseline: the same COPY",
            baseline=[read.impressions / read.copied_seconds],
        ),
    }
