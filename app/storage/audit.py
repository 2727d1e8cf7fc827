"""Who changed what, when: written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.engine import Database, ms_of
from app.storage.tables import audit


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One change: `before` and `after` are the changed thing as JSON, None where there was none."""

    id: int
    at_ms: int
    actor: str
    action: str
    subject: str
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None


async def write(
    connection: AsyncConnection,
    actor: str,
    action: str,
    subject: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Record a change inside the caller's transaction. Secrets have no place in either side."""
    await connection.execute(
        audit.insert().values(
            actor=actor,
            action=action,
            subject=subject,
            before=sa.null() if before is None else before,
            after=sa.null() if after is None else after,
        )
    )


async def write_all(
    connection: AsyncConnection,
    actor: str,
    action: str,
    changes: Sequence[tuple[str, Mapping[str, object] | None, Mapping[str, object]]],
) -> None:
    """`write` for many (subject, before, after) in at most two statements."""
    named = {"actor": actor, "action": action}
    new = [
        {**named, "subject": subject, "after": after}
        for subject, before, after in changes
        if before is None
    ]
    changed = [
        {**named, "subject": subject, "before": before, "after": after}
        for subject, before, after in changes
        if before is not None
    ]
    for rows in (new, changed):
        if rows:
            await connection.execute(audit.insert(), rows)


async def list_audit(
    database: Database,
    limit: int,
    after: int | None = None,
    subject: str | None = None,
    actor: str | None = None,
) -> list[AuditRow]:
    """The newest changes first; `after` is the id of the last row of the page before."""
    query = audit.select().order_by(audit.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(audit.c.id < after)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    if actor is not None:
        query = query.where(audit.c.actor == actor)
    async with database.begin() as connection:
        rows = (await connection.execute(query)).all()
    return [
        AuditRow(r.id, ms_of(r.at), r.actor, r.action, r.subject, r.before, r.after) for r in rows
    ]
