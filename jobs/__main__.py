"""The jobs process: leads by an advisory lock, then fires the schedule until told to stop."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from app import logs, tracing
from app.database_url import database_url
from app.settings import Settings, from_environment, listening
from app.storage import job_runs, migrate
from app.storage.engine import Database
from app.storage.errors import DatabaseUnavailable, LeadLost
from app.storage.job_runs import Lead
from jobs import retention, retrain
from jobs.context import Context, Measures
from jobs.schedule import scheduler_of, table
from models.features import load_schema

_LEAD_AGAIN_S = 2.0
_CHECK_LEAD_S = 1.0
_SET_BACK_S = 1.0
"""Smaller corrections of the clock only delay a tick."""


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises `MigrationsPending`, `SchemaInvalid` and `AddressUnavailable` at the start.
    """
    tracing.start("adscent-jobs", settings.otel_endpoint)
    url = database_url(settings)
    schema = load_schema(settings.features)
    await migrate.check(url)
    registry, measures = measured(settings)
    host, port = settings.metrics_host, settings.jobs_metrics_port
    with listening(host, port, "ADSCENT_JOBS_METRICS_"):
        server, _ = start_http_server(port, host, registry)
    database = Database(url, settings.database_pool)
    context = Context(
        settings=settings,
        database=database,
        schema=schema,
        store=settings.snapshot_store,
        clock=lambda: time.time_ns() // 1_000_000,
        log=structlog.get_logger("jobs"),
        measures=measures,
    )
    try:
        await _until_stopped(context)
    finally:
        await database.close()
        server.shutdown()
        tracing.stop()


def measured(settings: Settings) -> tuple[CollectorRegistry, Measures]:
    """The metrics of this process, a series for every job, and nothing that is not documented."""
    # Else there is a gauge beside every counter, which `serve` does not have.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it carries no types
    registry = CollectorRegistry()
    measures = Measures(registry)
    for job in table(settings):
        measures.failures.labels(job=job.name)
    return registry, measures


async def _until_stopped(context: Context) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    while not stop.is_set():
        with suppress(DatabaseUnavailable, LeadLost):
            await _lead_while_possible(context, stop)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LEAD_AGAIN_S)


async def _lead_while_possible(context: Context, stop: asyncio.Event) -> None:
    async with job_runs.try_lead(context.database) as lead:
        if lead is None:
            return
        context.log.info("leading")
        try:
            with context.measures.leading.track_inprogress():
                await _lead(context, lead, stop)
        finally:
            context.measures.comparisons.show({}, ())  # the leader tells of these
            context.log.info("stopped_leading")


async def _lead(context: Context, lead: Lead, stop: asyncio.Event) -> None:
    await _prepare(context)
    scheduler = scheduler_of(context)
    scheduler.start()
    try:
        await _watch(context, lead, stop)
    finally:
        # Without the pause a job that is due fires once more during the shutdown.
        scheduler.pause()
        async with context.training:
            scheduler.shutdown(wait=False)


async def _prepare(context: Context) -> None:
    """What must hold before the first tick."""
    abandoned = await job_runs.fail_abandoned(context.database, context.clock())
    if abandoned:
        context.log.warning("abandoned_runs_failed", count=abandoned)
    await job_runs.free_ticks(context.database, context.clock())
    await retention.keep_partitions(context)
    await retrain.ensure_genesis(context)
    await retention.record_horizon(context)
    await retrain.warm_up(context)


async def _watch(context: Context, lead: Lead, stop: asyncio.Event) -> None:
    """Return when told to stop, or when the clock was set back; raise `LeadLost` when the lock's
    session has ended.

    The scheduler would sleep until the clock has caught up. It is made anew by the next lead.
    """
    ahead_s = _ahead_s(context)
    while not stop.is_set():
        await lead.check()
        before_s, ahead_s = ahead_s, _ahead_s(context)
        if ahead_s < before_s - _SET_BACK_S:
            context.log.warning("clock_set_back", seconds=round(before_s - ahead_s, 1))
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _CHECK_LEAD_S)


def _ahead_s(context: Context) -> float:
    """The clock minus one that nobody sets."""
    return context.clock() / 1000 - time.monotonic()


def main() -> None:
    """Entry point of `python -m jobs` and of `adscent jobs`."""
    settings = from_environment()
    logs.configure(settings.log_level)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
