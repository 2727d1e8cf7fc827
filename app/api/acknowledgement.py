"""Waiting until every live worker has applied a change of the catalog or of the snapshot."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from app.api.services import Services
from app.storage import workers
from app.storage.engine import Database
from app.storage.errors import DatabaseUnavailable
from app.storage.workers import Worker

_LOOK_EVERY_S = 0.01


class Acknowledgement(msgspec.Struct, frozen=True):
    """Workers on which a change holds, and those not heard from in time."""

    acknowledged: list[str]
    pending: list[str]

    @property
    def status(self) -> int:
        """200 is the promise that the change holds everywhere; 202 names where it does not yet."""
        return 202 if self.pending else 200


async def acknowledged(services: Services, version: int) -> Acknowledgement:
    """Wait until every live worker has applied this version of the catalog."""
    return await _until(services, lambda worker: worker.catalog_version >= version)


async def swapped(services: Services, snapshot_id: UUID) -> Acknowledgement:
    """Wait until every live worker serves this snapshot."""
    return await _until(services, lambda worker: worker.snapshot_id == snapshot_id)


async def _until(services: Services, holds: Callable[[Worker], bool]) -> Acknowledgement:
    """Wait, at most `acknowledge_timeout_s`, until the change `holds` on every live worker."""
    deadline = time.monotonic() + services.settings.acknowledge_timeout_s
    while True:
        found = await _look(services.database, holds)
        if not found.pending or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(_LOOK_EVERY_S)


async def _look(database: Database, holds: Callable[[Worker], bool]) -> Acknowledgement:
    # The change is committed; losing the database now must not make the call look failed.
    try:
        present = await _present(database)
    except DatabaseUnavailable:
        return Acknowledgement([], ["unknown: the database stopped answering"])
    return Acknowledgement(
        [str(worker.worker_id) for worker in present if holds(worker)],
        [str(worker.worker_id) for worker in present if not holds(worker)],
    )


async def _present(database: Database) -> Sequence[Worker]:
    """The workers that serve; rows of processes of this host that have ended are removed.

    A worker without a snapshot serves nothing, and reads the catalog again after it has announced
    that it will.
    """
    live = await workers.live(database)
    gone = [worker for worker in live if has_ended(worker.host, worker.pid)]
    for worker in gone:
        await workers.leave(database, worker.worker_id)
    return [worker for worker in live if worker not in gone and worker.snapshot_id is not None]


def has_ended(host: str, pid: int) -> bool:
    """Whether this is a process of this host that no longer runs."""
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether it was killed and only its parent has not noticed yet (Linux)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "Z"
