"""For how long a worker may serve alone; what it hears of other workers."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from app.serving.lease import Lease
from app.serving.reports import Applied, Reports

pytestmark = pytest.mark.anyio


def test_lease_without_end_holds() -> None:
    """Where nobody limits it, a worker may serve."""
    assert Lease().holds()


def test_lease_runs_from_when_the_report_was_sent() -> None:
    """It holds for its seconds after that, whenever the answer came."""
    lease = Lease(100.0)
    assert not lease.holds()
    lease.renew(lease.now() - 99.0)
    assert lease.holds()
    lease.renew(lease.now() - 100.5)
    assert not lease.holds()


def test_ended_lease_holds_again_once_renewed() -> None:
    """A worker that was left out stops at once, until its next report is taken."""
    lease = Lease(100.0)
    lease.renew(lease.now())
    lease.end()
    assert not lease.holds()
    lease.renew(lease.now())
    assert lease.holds()


async def test_report_wakes_whoever_waits() -> None:
    """Everybody who waits for reports is woken by the next one, and finds it."""
    reports, worker_id = Reports(), uuid4()
    waiting = [asyncio.create_task(reports.next(5.0)) for _ in range(3)]
    await asyncio.sleep(0)
    reports.hear(worker_id, Applied(7, None))
    async with asyncio.timeout(1.0):
        await asyncio.gather(*waiting)
    assert reports.of(worker_id) == Applied(7, None)


async def test_wait_for_a_report_ends() -> None:
    """Without one the wait ends after its time."""
    async with asyncio.timeout(1.0):
        await Reports().next(0.01)


def test_reports_of_workers_that_are_gone_are_forgotten() -> None:
    """Only workers that are there are kept."""
    reports, stays, goes = Reports(), uuid4(), uuid4()
    for worker_id in (stays, goes):
        reports.hear(worker_id, Applied(1, None))
    reports.keep({stays})
    assert (reports.of(stays), reports.of(goes)) == (Applied(1, None), None)
