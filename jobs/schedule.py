"""The table of scheduled work, and the fence that makes firing twice harmless."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from app.settings import Settings
from app.storage.job_runs import claim_tick
from jobs import comparing, erasing, retention, retrain, statistics
from jobs.context import Context

Work = Callable[[Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the table. `every_s`: seconds between firings, at multiples of itself since 1970.

    A fenced job runs once per tick in the whole deployment, whoever fires it.
    """

    name: str
    every_s: float
    work: Work
    fenced: bool = True


def table(settings: Settings) -> tuple[Job, ...]:
    """All scheduled work of one deployment."""
    return (
        Job("horizon", settings.horizon_every_s, retention.record_horizon),
        Job("retrain", settings.retrain_every_s, retrain.scheduled),
        # Claiming a request is its own fence.
        Job("requested", min(1.0, settings.retrain_every_s), retrain.requested, fenced=False),
        Job("statistics", settings.statistics_every_s, statistics.count),
        Job("old_statistics", settings.retention_every_s, statistics.forget),
        Job("partitions", settings.retention_every_s, retention.keep_partitions),
        Job("erasures", settings.erasure_every_s, erasing.rewrite_events),
        Job("token_keys", settings.retention_every_s, retention.keep_token_keys),
        Job("comparisons", settings.compare_every_s, comparing.compare),
        Job("snapshots", settings.retention_every_s, retention.keep_snapshots),
    )


def scheduler_of(context: Context) -> AsyncIOScheduler:
    """A scheduler with the whole table, not yet started. Missed firings are merged into one."""
    scheduler = AsyncIOScheduler(timezone="UTC")
    for job in table(context.settings):
        scheduler.add_job(
            fire,
            IntervalTrigger(seconds=job.every_s, timezone="UTC"),
            args=(context, job),
            id=job.name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    return scheduler


async def fire(context: Context, job: Job) -> None:
    """Run a job unless this tick of it was taken; its failure is logged and ends nothing else."""
    period_ms = max(int(job.every_s * 1000), 1)
    tick_ms = context.clock() // period_ms * period_ms
    log = context.log.bind(job=job.name, tick_ms=tick_ms)
    try:
        if job.fenced and not await claim_tick(context.database, job.name, tick_ms):
            return
        await job.work(context)
    except Exception as error:
        log.error("job_failed", error=str(error), exc_info=True)
        context.measures.failures.labels(job=job.name).inc()
