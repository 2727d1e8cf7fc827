"""Which serving workers are alive, and which catalog version and snapshot each has applied.

Times are the database's: the clocks of hosts disagree.

A worker goes on serving from memory for `serves_alone_s` seconds after the last report that the
database took. Nobody forgets a worker sooner: whoever leaves it out of what a change waits for
takes its row away, and a worker whose row is gone serves nothing before it has read the catalog
anew. So a change that everybody has confirmed holds on workers that were cut off as well.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from app.storage.engine import CHANNEL, Database, ms_of
from app.storage.tables import workers

MARGIN_S = 10.0
"""How much longer than it serves a silent worker is waited for: clocks run unevenly."""

_LONGEST_S = 1e9
_SILENCE = f"make_interval(secs => least(serves_alone_s + {MARGIN_S}, {_LONGEST_S}))"
_LOOK = f"""
SELECT id, host, pid, catalog_version, snapshot_id, canary_id, seen_at,
    clock_timestamp() > seen_at + {_SILENCE} AS is_overdue
FROM workers ORDER BY id
"""  # noqa: S608 - numbers of ours
_SWEEP = f"""
DELETE FROM workers WHERE clock_timestamp() > seen_at + {_SILENCE} RETURNING id
"""  # noqa: S608 - numbers of ours
_BEAT = """
WITH before AS (SELECT catalog_version, snapshot_id, canary_id FROM workers WHERE id = $1),
beaten AS (
    UPDATE workers SET catalog_version = $2, snapshot_id = $3, canary_id = $4,
        seen_at = clock_timestamp()
    WHERE id = $1 RETURNING id
)
SELECT CASE
    WHEN ROW(before.*) IS DISTINCT FROM ROW($2::bigint, $3::uuid, $4::bigint)
    THEN pg_notify($5, $6) END
FROM beaten CROSS JOIN before
"""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process; `seen_ms` is when it was last heard of, by the database's clock.

    `is_overdue`: it has been silent for so long that it serves nothing any more.
    """

    worker_id: UUID
    host: str
    pid: int
    catalog_version: int
    snapshot_id: UUID | None
    seen_ms: int
    canary_id: int | None = None
    is_overdue: bool = False


@cache
def this_host() -> str:
    """What tells the processes of this host from others that have the same number.

    Its name alone does not: containers may share it, and not their numbers.
    """
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text()[:8])
        parts.append(str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]"))
    except OSError:
        pass  # not Linux: the name has to do
    return "/".join(parts)


async def register(
    database: Database,
    worker_id: UUID,
    host: str,
    pid: int,
    catalog_version: int = 0,
    snapshot_id: UUID | None = None,
    serves_alone_s: float = 50.0,
) -> None:
    """Enter a worker; from here on changes wait for it, if it has a snapshot."""
    row = {
        "host": host,
        "pid": pid,
        "catalog_version": catalog_version,
        "snapshot_id": snapshot_id,
        "canary_id": None,
        "serves_alone_s": serves_alone_s,
    }
    entry = insert(workers).values(id=worker_id, seen_at=sa.func.clock_timestamp(), **row)
    again = {"seen_at": entry.excluded.seen_at, **row}
    async with database.begin() as connection:
        await connection.execute(entry.on_conflict_do_update(index_elements=["id"], set_=again))


async def beat(
    database: Database,
    worker_id: UUID,
    catalog_version: int,
    snapshot_id: UUID | None,
    canary_id: int | None = None,
) -> bool:
    """Report what the worker has applied; False when it was swept and must register again.

    Whoever listens is told of what has changed since the last report.
    """
    report = {
        "kind": "worker",
        "id": worker_id,
        "catalog_version": catalog_version,
        "snapshot_id": snapshot_id,
        "canary_id": canary_id,
    }
    text = msgspec.json.encode(report).decode()
    values = (worker_id, catalog_version, snapshot_id, canary_id, CHANNEL, text)
    return bool(await database.line.fetch(_BEAT, *values))


async def leave(database: Database, worker_id: UUID) -> None:
    """Take out a worker that stops."""
    async with database.begin() as connection:
        await connection.execute(workers.delete().where(workers.c.id == worker_id))


async def look(database: Database) -> list[Worker]:
    """All workers by id, silent ones included."""
    rows = await database.line.fetch(_LOOK)
    return [
        Worker(
            *(r["id"], r["host"], r["pid"], r["catalog_version"], r["snapshot_id"]),
            *(ms_of(r["seen_at"]), r["canary_id"], r["is_overdue"]),
        )
        for r in rows
    ]


async def sweep(database: Database) -> list[UUID]:
    """Take out the workers that have been silent for too long to serve; their ids."""
    # Not over the relaxed line: a worker that was left out must not come back by a crash.
    async with database.begin() as connection:
        return list((await connection.execute(sa.text(_SWEEP))).scalars())


async def live(database: Database) -> list[Worker]:
    """The workers that may serve, by id; those silent for too long are swept."""
    found: Sequence[Worker] = await look(database)
    if any(worker.is_overdue for worker in found):
        swept = set(await sweep(database))
        found = [worker for worker in found if worker.worker_id not in swept]
    return list(found)
