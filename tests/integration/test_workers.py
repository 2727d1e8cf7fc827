"""Serving workers enter, report, leave and are swept."""

from __future__ import annotations

from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.storage import workers
from app.storage.engine import Database

pytestmark = pytest.mark.anyio


async def test_worker_reports_what_it_has_applied(database: Database) -> None:
    """After a beat the register shows the version and the snapshot."""
    worker_id, snapshot_id = uuid4(), uuid4()
    await workers.register(database, worker_id, "host", 12)
    assert await workers.beat(database, worker_id, 7, snapshot_id)
    [found] = await workers.live(database)
    assert (found.worker_id, found.host, found.pid) == (worker_id, "host", 12)
    assert (found.catalog_version, found.snapshot_id) == (7, snapshot_id)


async def test_worker_that_leaves_is_gone(database: Database) -> None:
    """A clean stop takes the worker out at once; a late beat does not bring it back."""
    worker_id = uuid4()
    await workers.register(database, worker_id, "host", 12)
    await workers.leave(database, worker_id)
    assert not await workers.beat(database, worker_id, 7, None)
    assert await workers.live(database) == []


async def test_silent_worker_is_swept(database: Database) -> None:
    """A worker unheard of for a minute is taken out; the others stay."""
    silent, lively = uuid4(), uuid4()
    for worker_id in (silent, lively):
        await workers.register(database, worker_id, "host", 12)
    age = "UPDATE workers SET seen_at = now() - interval '61 seconds' WHERE id = :id"
    async with database.begin() as connection:
        await connection.execute(sa.text(age), {"id": silent})
    assert [worker.worker_id for worker in await workers.live(database)] == [lively]
    assert not await workers.beat(database, silent, 7, None)


async def test_registering_again_starts_anew(database: Database) -> None:
    """A worker that registers a second time has applied nothing."""
    worker_id = uuid4()
    await workers.register(database, worker_id, "host", 12)
    await workers.beat(database, worker_id, 7, uuid4())
    await workers.register(database, worker_id, "host", 13)
    [found] = await workers.live(database)
    assert (found.pid, found.catalog_version, found.snapshot_id) == (13, 0, None)
