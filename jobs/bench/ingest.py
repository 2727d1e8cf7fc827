"""`adscent bench ingest`: durable events a second over HTTP, against a plain COPY of like rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from app.storage.engine import Database
from jobs.bench.client import Load
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.ingest_server import Ingestion, ingesting
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.signed_events import CLICKED_EVERY, bodies
from jobs.bench.stored_events import AT_ONCE, store
from jobs.bench.train import FEATURES
from models.types import Batch

ADS = 2_000
INGEST_TARGET: Target = ("value at least", 30_000.0)
JUDGED = 500
"""The size of the requests that the target and the latency are about."""
_WARMING = 5_000
_LARGE = 100
_SPAN_MS = 60_000
"""The events of a round were decided within the last minute."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `impressions` of one round, by how many events a request has.

    Requests of 100 events and more come over `connections`, smaller ones over eight times as many.
    `paced`: which part of the measured throughput the load that latency is of offers.
    """

    impressions: tuple[tuple[int, int], ...] = (
        *((1, 8_000), (10, 40_000), (100, 80_000)),
        *((500, 150_000), (1000, 150_000)),
    )
    connections: int = 8
    rounds: int = 5
    workers: int = 1
    paced: float = 0.5


QUICK = Sizes(impressions=((1, 1_000), (100, 10_000), (500, 20_000)), rounds=2)


def run(
    report: Path | None,
    seed: int,
    quick: bool = False,
    workers: int = 1,
    sizes: Sizes | None = None,
) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` for an answer that is not 200, and when the table does not hold exactly
    the events that were acknowledged.
    """
    console = Console()
    chosen = sizes or replace(QUICK if quick else Sizes(), workers=workers)
    machine = describe()
    with console.status("events on their way"):
        measured = asyncio.run(_measured(chosen, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "clicked_every": CLICKED_EVERY}
    settings |= {name: value for name, value in asdict(chosen).items() if name != "impressions"}
    settings |= {f"impressions_{size}": count for size, count in chosen.impressions}
    made = Report("bench ingest", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    most = max(count for _, count in sizes.impressions)
    async with (
        deployed(seed, ADS, most, FEATURES) as deployment,
        ingesting(deployment, sizes.workers) as server,
    ):
        rig = _Rig(deployment, server, sizes, np.random.default_rng(seed))
        for size, count in sizes.impressions:
            await rig.round(size, min(count, _WARMING))
            rounds = [await rig.round(size, count) for _ in range(sizes.rounds)]
            found |= _curve(size, rounds, rig.connections(size))
            if size == JUDGED:
                rate = sizes.paced * found[f"batch_{size}"].value
                loads = [await rig.paced(size, count, rate) for _ in range(sizes.rounds)]
                found |= _latencies(size, rate, loads)
    return found


@dataclass(frozen=True, slots=True)
class _Round:
    """One load, and what it took of the processor, beside as many rows copied without it."""

    load: Load
    events: int
    worker_ms: float
    database_ms: float
    copied_per_s: float

    @property
    def per_s(self) -> float:
        """Durable events a second."""
        return self.events / self.load.seconds


@dataclass(frozen=True, slots=True)
class _Rig:
    """A deployment that takes loads of events that nobody has sent before."""

    deployment: Deployment
    server: Ingestion
    sizes: Sizes
    random: np.random.Generator

    def connections(self, size: int) -> int:
        """How many connections send requests of so many events."""
        return self.sizes.connections * (1 if size >= _LARGE else 8)

    async def round(self, size: int, count: int) -> _Round:
        """Copy `count` impressions and their clicks, then send as many in requests of `size`."""
        part = self._part(count)
        copied_per_s = await self._copy(part)
        given = await self._bodies(part, size)
        worker_ms, database_ms = self.server.worker_ms(), self.server.database_ms()
        load = await self._send(given, self.connections(size), _events(part))
        return _Round(
            load,
            _events(part),
            self.server.worker_ms() - worker_ms,
            self.server.database_ms() - database_ms,
            copied_per_s,
        )

    async def paced(self, size: int, count: int, rate: float) -> Load:
        """Send the events of `count` impressions at `rate` events a second."""
        part = self._part(count)
        given = await self._bodies(part, size)
        return await self._send(given, self.connections(size), _events(part), rate / size)

    def _part(self, count: int) -> Batch:
        """Impressions of the last minute, every tenth of them with a click."""
        times = self.deployment.context.clock() - np.linspace(_SPAN_MS, 0, count).astype(np.int64)
        label = (np.arange(count) % CLICKED_EVERY == 0).astype(np.float32)
        return replace(self.deployment.events.rows(0, count), time_ms=times, label=label)

    async def _bodies(self, part: Batch, size: int) -> list[str]:
        snapshot_id = await self.deployment.served()
        return await asyncio.to_thread(
            bodies, part, self.server.tokens, snapshot_id, self.random, size
        )

    async def _copy(self, part: Batch) -> float:
        """Rows a second of a binary COPY straight into the table, in a few large transactions."""
        database, snapshot_id = self.deployment.context.database, await self.deployment.served()
        started = time.perf_counter()
        await store(database, part, snapshot_id, seed=int(self.random.integers(2**31)))
        seconds = time.perf_counter() - started
        await _settle(database)
        return _events(part) / seconds

    async def _send(
        self, given: list[str], connections: int, events: int, rate: float | None = None
    ) -> Load:
        """Send all and count them in the table. Raises `BenchmarkBroken`."""
        database = self.deployment.context.database
        before = await _count(database)
        load = await self.server.send(given, connections, rate)
        stored = await _count(database) - before
        if stored != events:
            raise BenchmarkBroken(f"{events} events were acknowledged, {stored} are in the table")
        await _settle(database)
        return load


def _events(part: Batch) -> int:
    return len(part) + int(part.label.sum())


async def _count(database: Database) -> int:
    async with database.session(command_timeout=None) as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM events")
        return count


async def _settle(database: Database) -> None:
    """What one load left to be written must not be counted in the next."""
    async with database.session(command_timeout=None) as connection:
        await connection.execute("CHECKPOINT")


def _curve(size: int, rounds: Sequence[_Round], connections: int) -> dict[str, Measure]:
    about = f"durable events in requests of {size} over {connections} connections"
    return {
        f"batch_{size}": measure(
            [one.per_s for one in rounds],
            "events/s",
            f"{about}; baseline: binary COPY of like rows into the same table, {AT_ONCE} a"
            " transaction, one session",
            baseline=[one.copied_per_s for one in rounds],
            target=INGEST_TARGET if size == JUDGED else None,
        ),
        f"batch_{size}_worker": measure(
            [one.worker_ms / one.events for one in rounds],
            "ms",
            f"processor time of the workers for an event: {about}",
        ),
        f"batch_{size}_database": measure(
            [one.database_ms / one.events for one in rounds],
            "ms",
            f"processor time of PostgreSQL for an event: {about}",
        ),
    }


def _latencies(size: int, rate: float, loads: Sequence[Load]) -> dict[str, Measure]:
    about = f"of a request of {size} events until they are durable, {rate:,.0f} events/s offered"
    return {
        f"batch_{size}_p{int(100 * part)}": measure(
            [load.latency_ms(part) for load in loads],
            "ms",
            f"latency {about}, counted from when it was due",
        )
        for part in (0.5, 0.99)
    }
