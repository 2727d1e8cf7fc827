"""`adscent workers forget`: a worker that changes should no longer wait for."""

from __future__ import annotations

from uuid import UUID

from app.commands.session import with_database
from app.settings import Settings
from app.storage import audit, workers
from app.storage.engine import Database
from app.storage.errors import NotFound


def forget(settings: Settings, worker_id: UUID) -> None:
    """Take its row away. Raises `NotFound`."""
    with_database(settings, lambda database: _forget(database, worker_id))


async def _forget(database: Database, worker_id: UUID) -> None:
    found = {one.worker_id: one for one in await workers.look(database)}
    if worker_id not in found:
        raise NotFound("worker", worker_id)
    gone = found[worker_id]
    before = {"host": gone.host, "pid": gone.pid, "catalog_version": gone.catalog_version}
    await workers.leave(database, worker_id)
    async with database.begin() as connection:
        actor = "cli:workers forget"
        await audit.write(connection, actor, "forget", f"worker:{worker_id}", before)
