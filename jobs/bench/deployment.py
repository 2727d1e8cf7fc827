"""A deployment to measure: a durable PostgreSQL, the seeded market's catalog, a snapshot store."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry

from app.commands.errors import CommandError
from app.settings import Settings
from app.storage import chunks, job_runs, migrate, partitions, snapshots
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from jobs import retrain
from jobs.bench.stored_catalog import store as store_catalog
from jobs.bench.stored_events import store
from jobs.context import Context, Measures
from jobs.market import Market
from jobs.market.traffic import batch
from models.schema import load_schema
from models.types import Batch

_SPAN_MS = 3_600_000
"""The market's whole run: the events of all rounds were decided within the last hour."""


class BenchmarkBroken(CommandError):
    """What was to be measured did not work, so its figures mean nothing."""


@dataclass(slots=True)
class Deployment:
    """`context` is what the jobs process has; `market` the traffic's source."""

    context: Context
    market: Market
    events: Batch
    used: int = 0

    async def ingest(self, count: int) -> Batch:
        """Store the next `count` impressions with their clicks; every attribution window ends."""
        part = self.events.rows(self.used, self.used + count)
        self.used += count
        database = self.context.database
        await store(database, part, await self.served(), seed=self.used)
        async with database.session(command_timeout=None) as connection:
            # What the writing left to be done must not be counted as reading.
            await connection.execute("CHECKPOINT")
        await chunks.record_horizon(database)
        return part

    async def train(self, count: int) -> float:
        """Seconds of the scheduled job on `count` waiting impressions, all of them learned."""
        started = time.perf_counter()
        await retrain.scheduled(self.context)
        seconds = time.perf_counter() - started
        await self.check(count)
        return seconds

    async def check(self, count: int) -> None:
        """Raise `BenchmarkBroken` unless the last run learned `count` impressions."""
        run = (await job_runs.list_runs(self.context.database, 1))[0]
        if run.state != "accepted" or run.events != count:
            detail = f"{run.state} with {run.events} events of {count}: {'; '.join(run.reasons)}"
            raise BenchmarkBroken(f"the training run ended as {detail}")

    async def served(self) -> UUID:
        """The id of the snapshot being served."""
        serving = await snapshots.serving(self.context.database)
        if serving is None:
            raise BenchmarkBroken("there is no genesis snapshot")
        return serving.snapshot_id


@asynccontextmanager
async def deployed(
    seed: int, ads: int, impressions: int, features: Path
) -> AsyncIterator[Deployment]:
    """Start a database as durable as any, load a market of `ads` ads, draw its impressions.

    Everything is removed at the end.
    """
    home = Path(tempfile.mkdtemp(prefix="adscent-bench-"))
    server = EmbeddedPostgres(home)
    try:
        url = await asyncio.to_thread(server.start)
        await migrate.upgrade(url)
        settings = Settings(
            home=home, features=features, database_url=url, attribution_window_s=0.0
        )
        database = Database(url)
        try:
            yield await _filled(settings, database, seed, ads, impressions)
        finally:
            await database.close()
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(server.folder, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)


async def _filled(
    settings: Settings, database: Database, seed: int, ads: int, impressions: int
) -> Deployment:
    context = _context(settings, database)
    now_ms = context.clock()
    market = Market(seed, ads, start_ms=now_ms - _SPAN_MS, days=1.0, day_ms=_SPAN_MS)
    owners, campaigns, first = market.catalog()
    born = market.births(market.shape.start_ms, market.end_ms)
    await store_catalog(database, owners, campaigns, [*first, *born])
    await partitions.ensure_partitions(database, now_ms)
    await retrain.ensure_genesis(context)
    events = await asyncio.to_thread(batch, market, impressions, context.schema, seed)
    return Deployment(context, market, events)


def _context(settings: Settings, database: Database) -> Context:
    return Context(
        settings=settings,
        database=database,
        schema=load_schema(settings.features),
        store=settings.snapshot_store,
        clock=lambda: time.time_ns() // 1_000_000,
        log=structlog.wrap_logger(structlog.ReturnLogger()),  # a table is printed, not a log
        measures=Measures(CollectorRegistry()),
    )
