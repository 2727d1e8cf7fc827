"""Waiting until every live worker has applied a change of the catalog or of the snapshot.

Workers say what they have applied through the database's notifications, so mostly one look at the
register of workers is enough: the rest is heard. Where nothing is heard, it is looked at again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import msgspec

from app.api.services import Services
from app.serving.reports import Applied, Reports
from app.storage import workers
from app.storage.engine import Database
from app.storage.errors import DatabaseUnavailable
from app.storage.workers import Worker

_LOOK_EVERY_S = 0.05


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
    return await _until(services, lambda applied: applied.catalog_version >= version)


async def swapped(services: Services, snapshot_id: UUID) -> Acknowledgement:
    """Wait until every live worker serves this snapshot, and no canary beside it."""
    return await _until(
        services,
        lambda applied: applied.snapshot_id == snapshot_id and applied.canary_id is None,
    )


async def canaried(services: Services, comparison_id: int | None) -> Acknowledgement:
    """Wait until every live worker answers with this canary, or with none."""
    return await _until(services, lambda applied: applied.canary_id == comparison_id)


async def _until(services: Services, holds: Callable[[Applied], bool]) -> Acknowledgement:
    """Wait, at most `acknowledge_timeout_s`, until the change `holds` on every live worker."""
    deadline = time.monotonic() + services.settings.acknowledge_timeout_s
    reports = services.state.reports
    while True:
        # The change is committed; losing the database now must not make the call look failed.
        try:
            present = await _present(services.database)
        except DatabaseUnavailable:
            return Acknowledgement([], ["unknown: the database stopped answering"])
        reports.keep({worker.worker_id for worker in present})
        pending = {worker.worker_id for worker in present if not holds(_applied(worker))}
        pending = await _heard(pending, holds, reports, deadline)
        if not pending or time.monotonic() >= deadline:
            return Acknowledgement(
                [str(one.worker_id) for one in present if one.worker_id not in pending],
                [str(one.worker_id) for one in present if one.worker_id in pending],
            )


async def _heard(
    pending: set[UUID], holds: Callable[[Applied], bool], reports: Reports, deadline: float
) -> set[UUID]:
    """Those of whom no such report has been heard by the time of the next look."""
    until = min(deadline, time.monotonic() + _LOOK_EVERY_S)
    while True:
        pending = {one for one in pending if not _says(reports.of(one), holds)}
        left_s = until - time.monotonic()
        if not pending or left_s <= 0:
            return pending
        await reports.next(left_s)


def _says(applied: Applied | None, holds: Callable[[Applied], bool]) -> bool:
    return applied is not None and holds(applied)


def _applied(worker: Worker) -> Applied:
    return Applied(worker.catalog_version, worker.snapshot_id, worker.canary_id)


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
    if host != workers.this_host():
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
