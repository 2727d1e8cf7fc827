"""What is served, inside the transaction that changes it: the stack, the pin, the history.

Every change takes `lock` first, makes its changes and ends with `note`, which records the whole
state that holds from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import tables
from app.storage.engine import at, notify
from app.storage.errors import Conflict, NotFound
from app.storage.tables import comparisons, promotions, snapshots
from models.comparison import Rule, Sums


@dataclass(frozen=True, slots=True)
class Plan:
    """How a candidate is compared: the share that a canary answers, None for a shadow."""

    share: float | None = None
    rule: Rule = field(default_factory=Rule)


async def lock(connection: AsyncConnection) -> None:
    """Whoever changes what is served takes turns with the training, which locks the cursor."""
    await connection.execute(sa.select(tables.training_cursor.c.fence).with_for_update())


async def current(connection: AsyncConnection) -> Any:
    """The row of what is served; None before the genesis."""
    return (await connection.execute(tables.serving.select())).one_or_none()


async def needed(connection: AsyncConnection) -> Any:
    """The same. Raises `Conflict` before the genesis."""
    found = await current(connection)
    if found is None:
        limit = "no snapshot is served"
        raise Conflict("snapshot", None, limit, "Start `adscent jobs`: it makes the first.")
    return found


async def snapshot_row(connection: AsyncConnection, snapshot_id: UUID) -> Any:
    """A recorded snapshot. Raises `NotFound`."""
    query = snapshots.select().where(snapshots.c.id == snapshot_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("snapshot", snapshot_id)
    return row


def check_may_answer(row: Any) -> None:
    """Raise `Conflict` for a snapshot that was refused or whose files may be gone."""
    if row.verdict == "refused":
        limit = "the gate refused it, and a refused snapshot is never served"
        raise Conflict("snapshot", str(row.id), limit, "Promote one that was accepted or repaired.")
    if row.expired_at is not None:
        limit = "its files were given up by retention"
        raise Conflict("snapshot", str(row.id), limit, "Promote a newer one.")


async def put_on(
    connection: AsyncConnection,
    snapshot_id: UUID,
    below_id: int | None,
    reason: str,
    actor: str,
    now_ms: int,
    *,
    pinned: bool,
    head_id: UUID | None = None,
) -> None:
    """Serve a snapshot on top of the promotion `below_id`; the head is the snapshot unless given.

    A canary that runs is over: it was compared with an incumbent that serves no more.
    """
    row = {"snapshot_id": snapshot_id, "below_id": below_id, "reason": reason, "actor": actor}
    entry = promotions.insert().values(promoted_at=at(now_ms), **row)
    promotion_id = await connection.scalar(entry.returning(promotions.c.id))
    new = {
        "promotion_id": promotion_id,
        "snapshot_id": snapshot_id,
        "head_id": head_id or snapshot_id,
        "pinned": pinned,
    }
    single = insert(tables.serving).values(new)
    await connection.execute(single.on_conflict_do_update(index_elements=["single"], set_=new))
    canary = await running(connection, "canary")
    if canary is not None:
        outcome = "promoted" if canary.snapshot_id == snapshot_id else "superseded"
        await end(connection, canary, outcome, actor, f"{reason} of {snapshot_id}")
    await connection.execute(notify("snapshot", snapshot_id=str(snapshot_id)))


async def below(connection: AsyncConnection, before: Any) -> Any:
    """The nearest promotion below the present one, of another snapshot that is still there."""
    below_id = sa.select(promotions.c.below_id).where(promotions.c.id == before.promotion_id)
    below = await connection.scalar(below_id)
    while below is not None:
        query = sa.select(promotions, snapshots.c.expired_at).join_from(promotions, snapshots)
        row: Any = (await connection.execute(query.where(promotions.c.id == below))).one()
        if row.expired_at is None and row.snapshot_id != before.snapshot_id:
            return row
        below = row.below_id
    return None


async def running(connection: AsyncConnection, kind: str) -> Any:
    """The row of the comparison of this kind that runs; None where none does."""
    query = comparisons.select().where(comparisons.c.kind == kind, comparisons.c.ended_at.is_(None))
    return (await connection.execute(query)).one_or_none()


async def begin(
    connection: AsyncConnection,
    kind: str,
    snapshot_id: UUID,
    incumbent_id: UUID,
    plan: Plan,
    actor: str,
    reason: str,
) -> Any:
    """Begin a comparison with the incumbent; its row. Workers take a canary up when they hear."""
    time = sa.func.clock_timestamp()
    entry = comparisons.insert().values(
        kind=kind,
        snapshot_id=snapshot_id,
        incumbent_id=incumbent_id,
        share=plan.share,
        rule=msgspec.to_builtins(plan.rule),
        actor=actor,
        reason=reason,
        started_at=time,
        measured_to=time,
        sums=msgspec.to_builtins(Sums()),
    )
    row = (await connection.execute(entry.returning(comparisons))).one()
    if kind == "canary":
        await connection.execute(notify("canary", comparison_id=row.id))
    return row


async def end(
    connection: AsyncConnection, comparison: Any, outcome: str, actor: str, reason: str
) -> None:
    """End a comparison; workers drop a canary when they hear of it."""
    ended = {"outcome": outcome, "ended_by": actor, "end_reason": reason}
    update = comparisons.update().where(comparisons.c.id == comparison.id)
    await connection.execute(update.values(ended_at=sa.func.clock_timestamp(), **ended))
    if comparison.kind == "canary":
        await connection.execute(notify("canary", comparison_id=comparison.id))


async def note(
    connection: AsyncConnection, action: str, subject_id: UUID, actor: str, reason: str = ""
) -> None:
    """Enter a change into the history, with what answers from now on, by the database's clock.

    Its times are whole milliseconds: callers ask for them by those.
    """
    served, canary = await current(connection), await running(connection, "canary")
    await connection.execute(
        tables.serving_history.insert().values(
            at=sa.func.date_trunc("milliseconds", sa.func.clock_timestamp()),
            action=action,
            subject_id=subject_id,
            snapshot_id=served.snapshot_id,
            pinned=served.pinned,
            canary_id=None if canary is None else canary.snapshot_id,
            share=None if canary is None else canary.share,
            actor=actor,
            reason=reason,
        )
    )
