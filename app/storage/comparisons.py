"""Canaries and shadows: begun, measured slice by slice, and ended by hand or by the rule.

At most one of each kind runs. What a canary is compared with is the incumbent at its start: a
promotion or a rollback ends it, and what is trained meanwhile waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.settings import Settings
from app.storage import audit, served, tables
from app.storage.engine import Database, at, maybe, ms_of
from app.storage.errors import Conflict, NotFound
from app.storage.served import Plan
from app.storage.tables import comparison_slices, comparisons
from models.comparison import Judgement, Rule, Sums, added

Kind = Literal["canary", "shadow"]
Outcome = Literal["promoted", "rolled_back", "superseded", "ended"]
Role = Literal["incumbent", "previous", "canary", "shadow", "head"]
LARGEST_SHARE = 0.5

_RUNNING = comparisons.select().where(comparisons.c.ended_at.is_(None)).order_by(comparisons.c.id)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate compared with the incumbent; it runs until `ended_ms`.

    `share`: of decisions and scores that a canary answers; `sums`: of all impressions decided from
    `started_ms` up to `measured_ms`; `judgement`: what the rule last said; `end_reason`: why
    `ended_by` ended it.
    """

    id: int
    kind: Kind
    snapshot_id: UUID
    incumbent_id: UUID
    share: float | None
    rule: Rule
    actor: str
    reason: str
    started_ms: int
    measured_ms: int
    sums: Sums
    judgement: Judgement | None
    ended_ms: int | None
    outcome: Outcome | None
    ended_by: str | None
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """What was measured of the impressions decided in [`from_ms`, `to_ms`)."""

    from_ms: int
    to_ms: int
    sums: Sums


def plan_of(settings: Settings, share: float | None) -> Plan:
    """A comparison by the deployment's rule; no canary answers more than half."""
    rule = Rule(
        min_clicks=settings.canary_min_clicks,
        log_loss_limit=settings.canary_log_loss_limit,
        calibration_low=1 / settings.canary_calibration,
        calibration_high=settings.canary_calibration,
        longest_s=settings.canary_longest_s,
    )
    return Plan(None if share is None else min(share, LARGEST_SHARE), rule)


async def start(
    database: Database, kind: Kind, snapshot_id: UUID, plan: Plan, actor: str, reason: str = ""
) -> Comparison:
    """Let a snapshot answer a share of the traffic, or score it all beside the incumbent.

    Raises `NotFound`, and `Conflict` for a snapshot that may not answer or is served already, and
    while another comparison of this kind runs.
    """
    async with database.begin() as connection:
        await served.lock(connection)
        before = await served.needed(connection)
        served.check_may_answer(await served.snapshot_row(connection, snapshot_id))
        if before.snapshot_id == snapshot_id:
            limit = "it is the incumbent itself"
            raise Conflict("snapshot", str(snapshot_id), limit, "Name another snapshot.")
        present = await served.running(connection, kind)
        if present is not None:
            limit = f"the {kind} of snapshot {present.snapshot_id} runs"
            raise Conflict(kind, str(snapshot_id), limit, f"End that {kind} first.")
        given = (snapshot_id, before.snapshot_id, plan, actor, reason)
        made = await served.begin(connection, kind, *given)
        await served.note(connection, f"{kind}_started", snapshot_id, actor, reason)
        await _audit(connection, actor, f"{kind}_start", snapshot_id, _told(made))
        return _of(made)


async def stop(
    database: Database, kind: Kind, snapshot_id: UUID, actor: str, reason: str = ""
) -> Comparison:
    """End a comparison by hand; nothing is promoted and training goes on from the head.

    Raises `NotFound`, and `Conflict` when no comparison of this kind runs for the snapshot.
    """
    async with database.begin() as connection:
        await served.lock(connection)
        await served.snapshot_row(connection, snapshot_id)
        present = await served.running(connection, kind)
        if present is None or present.snapshot_id != snapshot_id:
            limit = f"no {kind} of it runs"
            raise Conflict(kind, str(snapshot_id), limit, "Read the snapshot to see how it ended.")
        await served.end(connection, present, "ended", actor, reason)
        await served.note(connection, f"{kind}_ended", snapshot_id, actor, reason)
        return await _ended(connection, present, actor)


async def conclude(
    database: Database, comparison_id: int, judgement: Judgement, actor: str, now_ms: int
) -> Comparison | None:
    """Do what the rule says of a canary: promote it, or end it and train on from the incumbent.

    A promotion keeps the head when it was trained from the canary, else the canary becomes it; a
    rollback takes the head back to the incumbent when it was trained from the canary. None, and
    nothing done, when it does not run any more, or for a promotion while a snapshot is pinned.
    """
    async with database.begin() as connection:
        await served.lock(connection)
        canary, before = await served.running(connection, "canary"), await served.needed(connection)
        if canary is None or canary.id != comparison_id or judgement.result == "wait":
            return None
        reason = "; ".join(judgement.reasons)
        descends = await _descends(connection, before.head_id, canary.snapshot_id)
        if judgement.result == "promote":
            if before.pinned:
                return None
            await served.put_on(
                connection,
                canary.snapshot_id,
                before.promotion_id,
                "canary",
                actor,
                now_ms,
                pinned=False,
                head_id=before.head_id if descends else None,
            )
            await _explain(connection, canary.id, reason)
            await served.note(connection, "canary_promoted", canary.snapshot_id, actor, reason)
        else:
            await served.end(connection, canary, "rolled_back", actor, reason)
            if descends:
                back = tables.serving.update().values(head_id=before.snapshot_id)
                await connection.execute(back)
            await served.note(connection, "canary_rolled_back", canary.snapshot_id, actor, reason)
        return await _ended(connection, canary, actor)


async def running(database: Database) -> list[Comparison]:
    """The canary and the shadow that run, if any."""
    async with database.begin() as connection:
        return [_of(row) for row in await connection.execute(_RUNNING)]


async def running_canary(database: Database) -> Comparison | None:
    """The canary that runs."""
    async with database.begin() as connection:
        return maybe(_of, await served.running(connection, "canary"))


async def roles(database: Database) -> dict[Role, UUID]:
    """Which snapshot plays which part now; none before the genesis."""
    async with database.begin() as connection:
        serving = await served.current(connection)
        if serving is None:
            return {}
        found: dict[Role, UUID] = {"incumbent": serving.snapshot_id, "head": serving.head_id}
        previous = await served.below(connection, serving)
        if previous is not None:
            found["previous"] = previous.snapshot_id
        for row in await connection.execute(_RUNNING):
            found[row.kind] = row.snapshot_id
    return found


async def now_ms(database: Database) -> int:
    """The database's time, by which comparisons begin."""
    async with database.begin() as connection:
        return ms_of((await connection.execute(sa.select(sa.func.clock_timestamp()))).scalar_one())


async def get_comparison(database: Database, comparison_id: int) -> Comparison:
    """One comparison. Raises `NotFound`."""
    async with database.begin() as connection:
        return _of(await _row(connection, comparison_id))


async def of_snapshots(database: Database, ids: Sequence[UUID]) -> list[Comparison]:
    """Every comparison of these snapshots, the newest first."""
    query = comparisons.select().where(comparisons.c.snapshot_id.in_(ids))
    async with database.begin() as connection:
        rows = await connection.execute(query.order_by(comparisons.c.id.desc()))
        return [_of(row) for row in rows]


async def slices(database: Database, comparison_id: int, limit: int = 1000) -> list[Slice]:
    """What was measured, the newest `limit` slices in the order of time."""
    newest = comparison_slices.select().where(comparison_slices.c.comparison_id == comparison_id)
    newest = newest.order_by(comparison_slices.c.measured_from.desc()).limit(limit)
    async with database.begin() as connection:
        rows = (await connection.execute(newest)).all()
    return [
        Slice(ms_of(row.measured_from), ms_of(row.measured_to), msgspec.convert(row.sums, Sums))
        for row in reversed(rows)
    ]


async def add_slice(
    database: Database, comparison_id: int, measured: Slice, judgement: Judgement
) -> bool:
    """Add what was measured, and what the rule says of it all; False when another added it first.

    A slice begins where the last one ended, so none is counted twice; of an empty one only its end
    is kept.
    """
    async with database.begin() as connection:
        query = comparisons.select().where(comparisons.c.id == comparison_id).with_for_update()
        row = (await connection.execute(query)).one()
        if ms_of(row.measured_to) != measured.from_ms or row.ended_at is not None:
            return False
        if measured.sums != Sums():
            await _insert_slice(connection, comparison_id, measured)
        sums = added([msgspec.convert(row.sums, Sums), measured.sums])
        await connection.execute(
            comparisons.update()
            .where(comparisons.c.id == comparison_id)
            .values(
                measured_to=at(measured.to_ms),
                sums=msgspec.to_builtins(sums),
                judgement=msgspec.to_builtins(judgement),
            )
        )
    return True


async def _insert_slice(connection: AsyncConnection, comparison_id: int, measured: Slice) -> None:
    entry = insert(comparison_slices).values(
        comparison_id=comparison_id,
        measured_from=at(measured.from_ms),
        measured_to=at(measured.to_ms),
        sums=msgspec.to_builtins(measured.sums),
    )
    await connection.execute(entry)


async def _descends(connection: AsyncConnection, snapshot_id: UUID, ancestor: UUID) -> bool:
    """Whether a snapshot is the other one or was trained on from it."""
    return bool(
        await connection.scalar(
            sa.text(
                """
                WITH RECURSIVE line AS (
                    SELECT id, parent_id FROM snapshots WHERE id = :snapshot_id
                    UNION
                    SELECT parent.id, parent.parent_id
                    FROM snapshots AS parent JOIN line ON parent.id = line.parent_id
                    WHERE line.id <> :ancestor
                )
                SELECT EXISTS (SELECT FROM line WHERE id = :ancestor)
                """
            ),
            {"snapshot_id": snapshot_id, "ancestor": ancestor},
        )
    )


async def _explain(connection: AsyncConnection, comparison_id: int, reason: str) -> None:
    update = comparisons.update().where(comparisons.c.id == comparison_id)
    await connection.execute(update.values(end_reason=reason))


async def _row(connection: AsyncConnection, comparison_id: int) -> Any:
    query = comparisons.select().where(comparisons.c.id == comparison_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("comparison", comparison_id)
    return row


async def _ended(connection: AsyncConnection, before: Any, actor: str) -> Comparison:
    after = await _row(connection, before.id)
    told = (_told(before), _told(after))
    action = f"{after.kind}_{after.outcome}"
    await audit.write(connection, actor, action, f"snapshot:{after.snapshot_id}", *told)
    return _of(after)


async def _audit(
    connection: AsyncConnection, actor: str, action: str, snapshot_id: UUID, after: dict[str, Any]
) -> None:
    await audit.write(connection, actor, action, f"snapshot:{snapshot_id}", None, after)


def _told(row: Any) -> dict[str, Any]:
    return {
        "comparison_id": row.id,
        "kind": row.kind,
        "share": row.share,
        "incumbent_id": str(row.incumbent_id),
        "outcome": row.outcome,
        "reason": row.reason if row.outcome is None else row.end_reason,
    }


def _of(row: Any) -> Comparison:
    return Comparison(
        id=row.id,
        kind=row.kind,
        snapshot_id=row.snapshot_id,
        incumbent_id=row.incumbent_id,
        share=row.share,
        rule=msgspec.convert(row.rule, Rule),
        actor=row.actor,
        reason=row.reason,
        started_ms=ms_of(row.started_at),
        measured_ms=ms_of(row.measured_to),
        sums=msgspec.convert(row.sums, Sums),
        judgement=None if row.judgement is None else msgspec.convert(row.judgement, Judgement),
        ended_ms=maybe(ms_of, row.ended_at),
        outcome=row.outcome,
        ended_by=row.ended_by,
        end_reason=row.end_reason,
    )
