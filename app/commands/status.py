"""`adscent status`: what the deployment is doing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec

from app.commands.session import with_database
from app.settings import Settings
from app.storage import job_runs, lag, snapshots
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.job_runs import Run
from app.storage.lag import Lag
from app.storage.overview import Overview, SeenWorker, overview

_RUNS = 5
_TICKS = 3
_LEAST_S = 5.0
"""Work that keeps the processor busy delays a tick by seconds."""

JobsState = Literal["running", "stalled", "not running"]


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker; `silent_s`: since its last report, of which there is one a second."""

    id: UUID
    host: str
    pid: int
    state: str
    catalog_version: int
    snapshot_id: UUID | None
    silent_s: float


class ServingStatus(msgspec.Struct, frozen=True):
    """The snapshot that serves, since when it exists, and whether it is pinned."""

    snapshot_id: UUID
    verdict: str
    age_s: float
    is_pinned: bool


class RunStatus(msgspec.Struct, frozen=True):
    """One training run; `age_s`: since it was asked for."""

    id: UUID
    state: str
    events: int
    age_s: float
    reasons: Sequence[str]


class Status(msgspec.Struct, frozen=True):
    """All of it. `database`: "embedded" or "external"; lags in seconds, null before the first.

    `jobs`: "stalled" when one leads but has stopped recording horizons.
    """

    database: str
    postgres: str
    jobs: JobsState
    catalog_version: int
    active_ads: int
    impressions_per_minute: float
    clicks_per_minute: float
    horizon_lag_s: float | None
    cursor_lag_s: float | None
    serving: ServingStatus | None
    workers: Sequence[WorkerStatus]
    runs: Sequence[RunStatus]


def read(settings: Settings) -> Status:
    """Read everything. Raises what opening the database raises."""
    return with_database(settings, lambda database: _read(settings, database))


async def _read(settings: Settings, database: Database) -> Status:
    now_ms = time.time_ns() // 1_000_000
    seen, behind = await overview(database), await lag.lag(database)
    runs = await job_runs.list_runs(database, _RUNS)
    return Status(
        database=_kind(settings),
        postgres=seen.postgres,
        jobs=jobs_state(seen, behind, settings),
        catalog_version=seen.catalog_version,
        active_ads=seen.active_ads,
        impressions_per_minute=seen.impressions_per_minute,
        clicks_per_minute=seen.clicks_per_minute,
        horizon_lag_s=behind.horizon_s,
        cursor_lag_s=behind.cursor_s,
        serving=await _serving(database, now_ms),
        workers=_workers(seen),
        runs=[_run(run, now_ms) for run in runs],
    )


def jobs_state(seen: Overview, behind: Lag, settings: Settings) -> JobsState:
    """What the jobs process does, as far as the database knows."""
    if not seen.jobs_run:
        return "not running"
    return "stalled" if is_late(behind, settings) else "running"


def is_late(behind: Lag, settings: Settings) -> bool:
    """Whether horizons have stopped: the last one is older than three of their ticks."""
    allowed_s = max(_TICKS * settings.horizon_every_s, _LEAST_S)
    return behind.horizon_s is not None and behind.horizon_s > allowed_s


def _kind(settings: Settings) -> str:
    is_embedded = settings.database_url in (None, EmbeddedPostgres.url_of(settings.home))
    return "embedded" if is_embedded else "external"


async def _serving(database: Database, now_ms: int) -> ServingStatus | None:
    found = await snapshots.serving(database)
    if found is None:
        return None
    manifest = (await snapshots.get_snapshot(database, found.snapshot_id)).manifest
    age_s = (now_ms - manifest.created_ms) / 1000
    return ServingStatus(found.snapshot_id, manifest.verdict.result, age_s, found.is_pinned)


def _workers(seen: Overview) -> list[WorkerStatus]:
    return [_worker(one) for one in seen.workers]


def _worker(one: SeenWorker) -> WorkerStatus:
    held = (one.catalog_version, one.snapshot_id, one.silent_s)
    return WorkerStatus(one.id, one.host, one.pid, one.state, *held)


def _run(run: Run, now_ms: int) -> RunStatus:
    age_s = (now_ms - run.requested_ms) / 1000
    return RunStatus(run.id, run.state, run.events, age_s, list(run.reasons))
