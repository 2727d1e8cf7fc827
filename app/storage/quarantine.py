"""Events that a rule has set aside: counted, and released by hand. They are not learned."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from app.storage import audit, chunks
from app.storage.engine import Database, ms_of
from models.types import EventType

_COUNTS = sa.text(
    """
    SELECT quarantined_by AS rule, type, count(*) AS events,
        min(received_at) AS first_at, max(received_at) AS last_at
    FROM events WHERE quarantined_by IS NOT NULL
    GROUP BY quarantined_by, type ORDER BY quarantined_by, type
    """
)

# With the id of this transaction they are new to training: none of them was in a chunk before.
_RELEASE = sa.text(
    """
    UPDATE events SET quarantined_by = NULL, xid = pg_current_xact_id()
    WHERE quarantined_by = :rule AND (CAST(:ad_id AS bigint) IS NULL OR ad_id = :ad_id)
    """
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """How many events of one type a rule has set aside, and when they came (ms since 1970)."""

    rule: str
    type: EventType
    events: int
    first_ms: int
    last_ms: int


async def counts(database: Database) -> list[Quarantined]:
    """What is set aside, by rule and type."""
    async with database.read() as connection:
        rows = (await connection.execute(_COUNTS)).all()
    return [
        Quarantined(row.rule, row.type, row.events, ms_of(row.first_at), ms_of(row.last_at))
        for row in rows
    ]


async def release(database: Database, rule: str, actor: str, ad_id: int | None = None) -> int:
    """Let the events of a rule count, those of one ad or all; how many there were.

    Raises `ClusterChanged` between a restore and the rebase, which could not tell them from events
    that were accounted for before.
    """
    await chunks.read_cursor(database)
    async with database.begin() as connection:
        result = await connection.execute(_RELEASE, {"rule": rule, "ad_id": ad_id})
        before = {"quarantined": result.rowcount, "ad_id": ad_id}
        after = {"released": result.rowcount, "ad_id": ad_id}
        await audit.write(connection, actor, "release", f"quarantine:{rule}", before, after)
    return int(result.rowcount)
