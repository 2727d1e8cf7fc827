"""What a deployment is doing, read at one moment: for the person at the terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.storage.engine import Database
from app.storage.job_runs import LEADER

_SPAN_MINUTES = 5
_WORKERS = """
SELECT id, host, pid, catalog_version, snapshot_id, canary_id,
    extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s, serves_alone_s
FROM workers ORDER BY host, pid
"""
_ONE = f"""
SELECT current_setting('server_version') AS postgres,
    (SELECT version FROM catalog_version) AS catalog_version,
    EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid = {LEADER >> 32} AND objid = {LEADER & 0xFFFFFFFF}
    ) AS jobs_run,
    (SELECT count(*) FROM ads WHERE state = 'active') AS active_ads,
    (SELECT count(*) FROM events WHERE type = 'impression'
        AND decided_at > now() - interval '{_SPAN_MINUTES} minutes') AS impressions,
    (SELECT count(*) FROM events WHERE type = 'click'
        AND decided_at > now() - interval '{_SPAN_MINUTES} minutes') AS clicks
"""  # noqa: S608 - a number of ours


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker's row; `silent_s`: since its last report."""

    id: UUID
    host: str
    pid: int
    catalog_version: int
    snapshot_id: UUID | None
    canary_id: int | None
    silent_s: float
    serves_alone_s: float

    @property
    def state(self) -> str:
        """What it does, as far as the database knows."""
        if self.snapshot_id is None:
            return "starting"
        if not self.snapshot_id.int:
            return "swapping"
        return "serving" if self.silent_s < 5 else "silent"


@dataclass(frozen=True, slots=True)
class Overview:
    """The database's version, the catalog, and events by the minute of the last five.

    `jobs_run`: whether a jobs process leads.
    """

    postgres: str
    jobs_run: bool
    catalog_version: int
    active_ads: int
    impressions_per_minute: float
    clicks_per_minute: float
    workers: tuple[SeenWorker, ...]


async def overview(database: Database) -> Overview:
    """Read it. Nothing is swept or changed."""
    async with database.read() as connection:
        one: Any = (await connection.execute(sa.text(_ONE))).one()
        rows = (await connection.execute(sa.text(_WORKERS))).all()
    return Overview(
        one.postgres,
        one.jobs_run,
        one.catalog_version,
        one.active_ads,
        one.impressions / _SPAN_MINUTES,
        one.clicks / _SPAN_MINUTES,
        tuple(SeenWorker(*row) for row in rows),
    )


async def database_clock(database: Database) -> tuple[float, float]:
    """The database's clock, in seconds since 1970, and how long it took to ask for it."""
    async with database.begin() as connection:
        await connection.execute(sa.text("SELECT 1"))
        started = time.perf_counter()
        text = "SELECT extract(epoch FROM clock_timestamp())::float8"
        found: float = (await connection.execute(sa.text(text))).scalar_one()
        return found, time.perf_counter() - started
