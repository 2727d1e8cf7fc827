"""Runs go through their states once, ticks are taken once, and one process leads."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from app.storage import job_runs
from app.storage.engine import Database
from app.storage.errors import Conflict, LeadLost, NotFound
from tests.integration.making import eventually, now_ms

pytestmark = pytest.mark.anyio


async def test_requested_run_is_claimed_once(database: Database) -> None:
    """Of two who look, one gets the run, with its overrides."""
    asked = await job_runs.request_retrain(database, {"step_size": 1e6}, "ann", now_ms())
    assert asked.state == "requested"
    claims = await asyncio.gather(
        *(job_runs.claim_requested_run(database, now_ms()) for _ in range(2))
    )
    [claimed] = [run for run in claims if run is not None]
    assert (claimed.id, claimed.state, claimed.actor) == (asked.id, "running", "ann")
    assert claimed.overrides == {"step_size": 1e6}
    assert claimed.started_ms is not None


async def test_oldest_request_comes_first(database: Database) -> None:
    """Requests are served in their order."""
    asked = [await job_runs.request_retrain(database, {}, "ann", ms) for ms in (1000, 2000)]
    found = [await job_runs.claim_requested_run(database, now_ms()) for _ in asked]
    assert [run.id for run in found if run] == [run.id for run in asked]


async def test_run_ends_once(database: Database) -> None:
    """A run that has ended cannot end again."""
    run = await job_runs.start_run(database, now_ms())
    await job_runs.finish(database, run.id, "failed", ["out of memory"], now_ms())
    ended = await job_runs.get_run(database, run.id)
    assert (ended.state, ended.reasons) == ("failed", ("out of memory",))
    assert ended.finished_ms is not None
    with pytest.raises(Conflict, match="running"):
        await job_runs.finish(database, run.id, "empty", [], now_ms())


async def test_abandoned_runs_are_failed(database: Database) -> None:
    """A new leader ends what a dead one left running, and leaves requests alone."""
    run = await job_runs.start_run(database, now_ms())
    asked = await job_runs.request_retrain(database, {}, "ann", now_ms())
    assert await job_runs.fail_abandoned(database, now_ms()) == 1
    assert (await job_runs.get_run(database, run.id)).state == "failed"
    assert (await job_runs.get_run(database, asked.id)).state == "requested"


async def test_runs_are_listed_newest_first(database: Database) -> None:
    """Pages follow each other by id."""
    runs = [await job_runs.start_run(database, 1000 * n) for n in range(1, 4)]
    first = await job_runs.list_runs(database, 2)
    rest = await job_runs.list_runs(database, 2, after=first[-1].id)
    assert [run.id for run in first + rest] == [run.id for run in reversed(runs)]
    with pytest.raises(NotFound):
        await job_runs.get_run(database, uuid4())


async def test_tick_is_claimed_by_one(database: Database) -> None:
    """Of many that fire the same tick one runs it; another job or tick is another matter."""
    tick = now_ms() // 1000 * 1000
    claims = await asyncio.gather(
        *(job_runs.claim_tick(database, "retrain", tick) for _ in range(5))
    )
    assert sorted(claims) == [False] * 4 + [True]
    assert await job_runs.claim_tick(database, "retrain", tick + 1000)
    assert await job_runs.claim_tick(database, "retention", tick)


async def test_ticks_of_a_clock_that_was_ahead_are_freed(database: Database) -> None:
    """After the clock went back its ticks come again; those of the past stay taken."""
    now = now_ms()
    for tick in (now - 1000, now + 1000):
        assert await job_runs.claim_tick(database, "retrain", tick)
    await job_runs.free_ticks(database, now)
    assert not await job_runs.claim_tick(database, "retrain", now - 1000)
    assert await job_runs.claim_tick(database, "retrain", now + 1000)


async def test_one_process_leads(database: Database) -> None:
    """While one leads another does not; when it stops the other can."""
    async with job_runs.try_lead(database) as lead:
        assert lead is not None
        await lead.check()
        async with job_runs.try_lead(database) as other:
            assert other is None
    async with job_runs.try_lead(database) as lead:
        assert lead is not None


async def test_lost_session_is_a_lost_lead(database: Database) -> None:
    """When the session of the lock ends the leader notices by itself, and another can lead."""
    async with job_runs.try_lead(database) as lead:
        assert lead is not None
        async with database.session() as connection:
            await connection.execute(
                """
                SELECT pg_terminate_backend(pid) FROM pg_locks
                WHERE locktype = 'advisory' AND database =
                    (SELECT oid FROM pg_database WHERE datname = current_database())
                """
            )
        await eventually(lead.lost.is_set)
        with pytest.raises(LeadLost):
            await lead.check()
        async with job_runs.try_lead(database) as other:
            assert other is not None


async def test_errors_of_the_leading_block_stay_what_they_are(database: Database) -> None:
    """A missing file in a job is no database that is away."""
    with pytest.raises(FileNotFoundError):
        async with job_runs.try_lead(database):
            raise FileNotFoundError("features.toml")
