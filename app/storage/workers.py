"""Which serving workers are alive, and which catalog version and snapshot each has applied.

Times are the database's: the clocks of hosts disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.storage.engine import Database, ms_of
from app.storage.tables import workers


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process; `seen_ms` is when it was last heard of, by the database's clock."""

    worker_id: UUID
    host: str
    pid: int
    catalog_version: int
    snapshot_id: UUID | None
    seen_ms: int


async def register(database: Database, worker_id: UUID, host: str, pid: int) -> None:
    """Enter a worker that has applied nothing yet."""
    row = {"host": host, "pid": pid, "catalog_version": 0, "snapshot_id": None}
    entry = insert(workers).values(id=worker_id, seen_at=sa.func.clock_timestamp(), **row)
    again = {"seen_at": entry.excluded.seen_at, **row}
    async with database.begin() as connection:
        await connection.execute(entry.on_conflict_do_update(index_elements=["id"], set_=again))


async def beat(
    database: Database, worker_id: UUID, catalog_version: int, snapshot_id: UUID | None
) -> bool:
    """Report what the worker has applied; False when it was swept and must register again."""
    update = workers.update().where(workers.c.id == worker_id)
    async with database.begin() as connection:
        result = await connection.execute(
            update.values(
                catalog_version=catalog_version,
                snapshot_id=snapshot_id,
                seen_at=sa.func.clock_timestamp(),
            )
        )
    return result.rowcount == 1


async def leave(database: Database, worker_id: UUID) -> None:
    """Take out a worker that stops."""
    async with database.begin() as connection:
        await connection.execute(workers.delete().where(workers.c.id == worker_id))


async def live(database: Database, silent_s: float = 60.0) -> list[Worker]:
    """The workers heard of within `silent_s` seconds, by id; the others are swept."""
    silence = sa.func.make_interval(0, 0, 0, 0, 0, 0, silent_s)
    too_old = workers.c.seen_at < sa.func.clock_timestamp() - silence
    async with database.begin() as connection:
        await connection.execute(workers.delete().where(too_old))
        rows = (await connection.execute(workers.select().order_by(workers.c.id))).all()
    return [
        Worker(r.id, r.host, r.pid, r.catalog_version, r.snapshot_id, ms_of(r.seen_at))
        for r in rows
    ]
