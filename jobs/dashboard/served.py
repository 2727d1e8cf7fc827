"""What is served now, in the words that more than one page has for it."""

from __future__ import annotations

from uuid import UUID

from app.storage import served as served_now
from app.storage.engine import Database
from jobs.dashboard.parts import empty, link, pill
from jobs.dashboard.units import short


async def stack_top(database: Database) -> tuple[UUID | None, UUID | None]:
    """What serves now, and what a rollback would serve: found as the rollback finds it."""
    async with database.begin() as connection:
        now = await served_now.current(connection)
        before = None if now is None else await served_now.below(connection, now)
    return (
        None if now is None else now.snapshot_id,
        None if before is None else before.snapshot_id,
    )


def nothing_served() -> None:
    """Before the first snapshot."""
    empty("Nothing is served yet. `adscent jobs` makes the first snapshot when it starts.")


def served(snapshot_id: UUID, is_pinned: bool) -> None:
    """The snapshot's name, which leads to its page, and whether it is pinned."""
    link(f"snapshot {short(snapshot_id)}", f"/snapshots/{snapshot_id}", "mono")
    if is_pinned:
        pill("pinned", "warn")
