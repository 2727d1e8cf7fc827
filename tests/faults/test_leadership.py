"""Two leaders, a leader that lost its lock, a tick that is fired twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry

from app.settings import Settings
from app.storage.engine import Database
from jobs import retrain
from jobs.context import Context, Measures
from jobs.schedule import Job, fire
from models.schema import load_schema
from tests.faults.accounts import count
from tests.faults.deployment import RETRAIN_EVERY_S, WINDOW_S, Deployment
from tests.faults.phases import held
from tests.faults.processes import Part, wait_for
from tests.faults.report import Seen

_IMPRESSIONS = 60_000
_LEADER = (0x41445343, 0x4C454144)
"""The two halves of the key of the leader's advisory lock."""
_SPARE = """
SELECT (SELECT count(*) FROM job_ticks WHERE job = 'retrain' AND claimed_at > $1)
    - (SELECT count(*) FROM retrain_runs WHERE started_at > $1 AND actor = 'schedule')
"""
"""Ticks that were taken, each by one process, minus runs: a tick has a run or none."""


def test_two_leaders_for_a_tick(deployment: Deployment, seen: Seen) -> None:
    """A frozen leader loses its lock; it wakes right before a tick of the new leader."""
    with deployment.visited(), _second(deployment) as second:
        time.sleep(3)
        start = deployment.look.value("SELECT clock_timestamp()")
        deployment.jobs.send(signal.SIGSTOP)
        since = time.monotonic()
        _end_lead(deployment)
        wait_for(lambda: "kernel_ready" in second.words(), "the second leader")
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - since)
        time.sleep(RETRAIN_EVERY_S - time.time() % RETRAIN_EVERY_S - 0.05)
        deployment.jobs.send(signal.SIGCONT)
        wait_for(lambda: "stopped_leading" in deployment.jobs.words(), "the old one's end")
        time.sleep(2 * RETRAIN_EVERY_S)
    spare = deployment.look.value(_SPARE, start)
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert spare >= 0
    assert not deployment.ledger.failed_since(since)


def test_lost_lock_in_training(deployment: Deployment, seen: Seen) -> None:
    """A leader loses its lock in mid-training; another trains its chunk, it cannot commit."""
    look = deployment.look
    with deployment.visited(), _second(deployment) as second:
        with held(deployment, "train", _IMPRESSIONS):
            run = look.value("SELECT id FROM retrain_runs WHERE state = 'running'")
            since = time.monotonic()
            _end_lead(deployment)
            wait_for(lambda: "kernel_ready" in second.words(), "the second leader")
            deployment.wait_until_trained()
            seen.recovered(training=time.monotonic() - since)
            deployment.jobs.send(signal.SIGCONT)
        wait_for(lambda: "stopped_leading" in deployment.jobs.words(), "the old one's end")
    ended = look.fetch("SELECT state, snapshot_id FROM retrain_runs WHERE id = $1", run)[0]
    assert (ended["state"], ended["snapshot_id"]) == ("failed", None)
    assert "job_failed" not in deployment.jobs.words(), "to be overtaken is no fault"
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))


def test_duplicate_tick(deployment: Deployment, seen: Seen) -> None:
    """A second scheduler fires every tick of the leader, twice at once: each is run by one."""
    look, background = deployment.look, deployment.background
    with deployment.visited():
        start, since = look.value("SELECT clock_timestamp()"), time.monotonic()
        background.run(_fire_along(deployment, 6))
    spare = look.value(_SPARE, start)
    seen.note(ticks_fired_thrice=6)
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert spare >= 0


async def _fire_along(deployment: Deployment, ticks: int) -> None:
    """Fire the retrain of each tick as a process does that believes that it leads."""
    environment = deployment.jobs.environment
    settings = Settings(
        home=deployment.home,
        features=environment["ADSCENT_FEATURES"],  # type: ignore[arg-type]  # a path as text
        attribution_window_s=WINDOW_S,
    )
    database = Database(deployment.look.url, pool=4)
    context = Context(
        settings=settings,
        database=database,
        schema=load_schema(settings.features),
        store=deployment.store,
        clock=lambda: time.time_ns() // 1_000_000,
        log=structlog.wrap_logger(structlog.ReturnLogger()),
        measures=Measures(CollectorRegistry()),
    )
    job = Job("retrain", RETRAIN_EVERY_S, retrain.scheduled)
    for _ in range(ticks):
        await asyncio.sleep(RETRAIN_EVERY_S - time.time() % RETRAIN_EVERY_S)
        await asyncio.gather(fire(context, job), fire(context, job))
    await database.close()


@contextmanager
def _second(deployment: Deployment) -> Iterator[Part]:
    """Another `adscent jobs`, which waits for the lead; it is the deployment's from then on."""
    environment = deployment.jobs.environment | {"ADSCENT_JOBS_METRICS_PORT": "0"}
    second = Part(["jobs"], environment, deployment.home / f"jobs{time.monotonic_ns()}.log")
    second.start()
    try:
        yield second
    finally:
        if deployment.jobs.is_running:
            deployment.jobs.send(signal.SIGCONT)
        deployment.jobs.stop()
        deployment.jobs = second


def _end_lead(deployment: Deployment) -> None:
    """End the session that holds the leader lock."""
    rows = deployment.look.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND classid::bigint = $1 AND objid::bigint = $2",
        *_LEADER,
    )
    assert len(rows) == 1
