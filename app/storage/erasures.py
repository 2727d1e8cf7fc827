"""Tombstones of erased values: which there are, who knows of them, how far they have come.

A tombstone is the value's hash; the value itself is stored nowhere. Versions count erasures in the
order in which they were committed, so who has read up to one has read all below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.storage import audit
from app.storage import workers as serving
from app.storage.engine import Database, maybe, ms_of, notify
from app.storage.errors import NotFound
from app.storage.tables import erasures, workers
from models.erasure import NOTHING, Erased

_LOCK = 0x41445343_45524153  # "ADSCERAS": erasures are committed in the order of their versions
_SINCE = "SELECT hash, missing, version FROM erasures WHERE version > $1 ORDER BY version"


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erased value. Times in ms since 1970.

    `feature`: as in `user.geo`; `events`: stored events that lost the value; `events_ms`: since
    when no stored event has it, None while some may.
    """

    hash: int
    feature: str
    version: int
    erased_ms: int
    events_ms: int | None
    events: int


async def erase(
    database: Database, feature: str, value_hash: int, missing_hash: int, actor: str
) -> Erasure:
    """Add the tombstone of a value; the one that is there already where it was erased before.

    `feature`: as in `user.geo`; the hashes are `models.features.value_hash` of the value and of "".
    """
    row = {"hash": value_hash, "missing": missing_hash, "feature": feature}
    async with database.begin() as connection:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        known = await connection.execute(erasures.select().where(erasures.c.hash == value_hash))
        found = known.one_or_none()
        if found is None:
            newest = await connection.scalar(sa.select(sa.func.max(erasures.c.version)))
            entry = erasures.insert().values(version=(newest or 0) + 1, **row).returning(erasures)
            found = (await connection.execute(entry)).one()
            after = {"version": found.version}
            subject = f"{feature}:{shown(value_hash)}"
            await audit.write(connection, actor, "erase", subject, after=after)
            await connection.execute(notify("erasures", version=found.version))
        return _erasure(found)


def shown(value_hash: int) -> str:
    """A hash as people and logs see it: sixteen hexadecimal digits."""
    return f"{value_hash % 2**64:016x}"


async def get(database: Database, value_hash: int) -> Erasure:
    """The erasure of a value. Raises `NotFound`."""
    async with database.begin() as connection:
        query = erasures.select().where(erasures.c.hash == value_hash)
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("erasure", shown(value_hash))
    return _erasure(row)


async def read(database: Database, known: Erased = NOTHING) -> Erased:
    """All erased values; `known` itself where there are no others since."""
    query = sa.select(erasures.c.hash, erasures.c.missing, erasures.c.version)
    async with database.begin() as connection:
        rows = (await connection.execute(query.where(erasures.c.version > known.version))).all()
    return _with_rows(known, [row._mapping for row in rows])


async def read_over(connection: Any, known: Erased = NOTHING) -> Erased:
    """The same over a session connection, as its transaction sees them."""
    return _with_rows(known, await connection.fetch(_SINCE, known.version))


async def applied(database: Database, worker_id: UUID, version: int) -> None:
    """Note that a worker has applied all erasures up to this one. Writes where that is news."""
    mine = (workers.c.id == worker_id) & (workers.c.erasure_version != version)
    async with database.begin() as connection:
        await connection.execute(workers.update().where(mine).values(erasure_version=version))


async def knowing(database: Database, version: int) -> tuple[list[UUID], list[UUID]]:
    """The workers that serve: those that have applied all erasures up to this one, and the others.

    One without a snapshot serves nothing, and reads the erasures before it does.
    """
    live = {one.worker_id for one in await serving.live(database) if one.snapshot_id is not None}
    query = sa.select(workers.c.id, workers.c.erasure_version).order_by(workers.c.id)
    async with database.begin() as connection:
        rows = [row for row in (await connection.execute(query)).all() if row.id in live]
    know = [row.id for row in rows if row.erasure_version >= version]
    return know, [row.id for row in rows if row.id not in know]


async def ads_naming(database: Database, feature: str, text: str) -> list[int]:
    """Ads whose targeting names this value (as text, canonical) of a user feature."""
    path = f'$.*[*]."{feature}"[*] ? (@ == $text)'
    query = sa.text(
        "SELECT id FROM ads WHERE jsonb_path_exists(targeting, CAST(:path AS jsonpath),"
        " jsonb_build_object('text', CAST(:text AS text))) ORDER BY id"
    )
    async with database.begin() as connection:
        return list(await connection.scalars(query, {"path": path, "text": text}))


async def unfinished(database: Database) -> Erased:
    """The values that stored events may still have."""
    query = sa.select(erasures.c.hash, erasures.c.missing, erasures.c.version)
    async with database.begin() as connection:
        rows = (await connection.execute(query.where(erasures.c.events_at.is_(None)))).all()
    return _with_rows(NOTHING, [row._mapping for row in rows])


async def finish(database: Database, done: Erased, counts: dict[int, int]) -> None:
    """Note that no stored event has these values any more; `counts`: how many had each."""
    update = erasures.update().where(
        (erasures.c.hash == sa.bindparam("of")) & erasures.c.events_at.is_(None)
    )
    given = [{"of": one, "more": counts.get(one, 0)} for one in done.missing]
    changed = update.values(
        events=erasures.c.events + sa.bindparam("more"), events_at=sa.func.now()
    )
    async with database.begin() as connection:
        await connection.execute(changed, given)


def _with_rows(known: Erased, rows: list[Any]) -> Erased:
    if not rows:
        return known
    newest = max(row["version"] for row in rows)
    return known.with_more({row["hash"]: row["missing"] for row in rows}, newest)


def _erasure(row: Any) -> Erasure:
    times = (ms_of(row.erased_at), maybe(ms_of, row.events_at))
    return Erasure(row.hash, row.feature, row.version, *times, row.events)
