"""Which snapshot answered when: every change of what answers, with who made it and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from app.storage.engine import Database, at, maybe, ms_of
from app.storage.tables import serving_history


@dataclass(frozen=True, slots=True)
class Period:
    """From `from_ms` until `until_ms` (None: still) `snapshot_id` answered.

    Times are the database's. `canary_id` answered `share` of decisions and scores; with `is_pinned`
    nothing was promoted of itself. `action`, `subject_id`, `actor` and `reason` tell what change
    began the period. Workers need some milliseconds to follow; every event names its snapshot.
    """

    id: int
    from_ms: int
    until_ms: int | None
    action: str
    subject_id: UUID
    snapshot_id: UUID
    is_pinned: bool
    canary_id: UUID | None
    share: float | None
    actor: str
    reason: str


async def between(
    database: Database,
    from_ms: int | None = None,
    to_ms: int | None = None,
    limit: int = 1000,
    after: int | None = None,
) -> list[Period]:
    """The periods that overlap [`from_ms`, `to_ms`], the newest first: one query.

    `after` is the id of the last period of the page before.
    """
    until = sa.func.lead(serving_history.c.at).over(order_by=serving_history.c.id)
    every = sa.select(serving_history, until.label("until")).subquery()
    query = sa.select(every).order_by(every.c.id.desc()).limit(limit)
    if from_ms is not None:
        query = query.where(sa.or_(every.c.until.is_(None), every.c.until > at(from_ms)))
    if to_ms is not None:
        query = query.where(every.c.at <= at(to_ms))
    if after is not None:
        query = query.where(every.c.id < after)
    async with database.begin() as connection:
        return [_of(row) for row in await connection.execute(query)]


def _of(row: Any) -> Period:
    return Period(
        id=row.id,
        from_ms=ms_of(row.at),
        until_ms=maybe(ms_of, row.until),
        action=row.action,
        subject_id=row.subject_id,
        snapshot_id=row.snapshot_id,
        is_pinned=row.pinned,
        canary_id=row.canary_id,
        share=row.share,
        actor=row.actor,
        reason=row.reason,
    )
