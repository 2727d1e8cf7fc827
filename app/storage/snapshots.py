"""Snapshots, which of them is served, and from which the next training starts.

A snapshot's folder is complete before its row is written. The rows of a training run, the move of
the cursor, the run's result and the promotion are one transaction: a crash anywhere leaves the
incumbent and the cursor as they were.

What is served is a stack: a promotion lies on the one before it, a rollback takes the top one off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import audit, job_runs, served, tables
from app.storage.chunks import Cursor, advance
from app.storage.engine import Database, at, maybe, ms_of
from app.storage.errors import Conflict, CursorMoved
from app.storage.job_runs import RunState
from app.storage.served import Plan
from app.storage.tables import promotions, snapshots
from models.snapshot import Manifest

_ACTOR = "training"
_ROLLBACKS_KEPT = 3
"""Who goes back once may have to go back again: the one before may have the same fault."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served and trained on: `head_id` is the parent of the next training.

    While `is_pinned`, or while a canary runs, newly trained snapshots become the head but are not
    served.
    """

    snapshot_id: UUID
    head_id: UUID
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A recorded snapshot. `expired_ms`: since when its folder may be gone."""

    manifest: Manifest
    expired_ms: int | None


@dataclass(frozen=True, slots=True)
class Promotion:
    """From `promoted_ms` until the next promotion this snapshot was served."""

    id: int
    snapshot_id: UUID
    reason: str
    actor: str
    promoted_ms: int


@dataclass(frozen=True, slots=True)
class _Top:
    """What would be served once the promotions above `promotion_id` are taken off."""

    promotion_id: int
    snapshot_id: UUID


@dataclass(frozen=True, slots=True)
class Training:
    """What a training run did: recorded as a whole or not at all.

    `manifests`: the candidates in the order they were made, the last is the result; none for an
    empty chunk. `start` and `end`: the cursor before and after the chunk.
    """

    run_id: UUID
    state: RunState
    manifests: Sequence[Manifest]
    start: Cursor
    end: Cursor
    events: int
    reasons: Sequence[str] = ()


async def record(
    database: Database, training: Training, now_ms: int, canary: Plan | None = None
) -> Serving | None:
    """Record a training run and what it made; an accepted or repaired result becomes the head.

    It is served, or with `canary` begins as one, unless a snapshot is pinned or a canary runs: then
    it waits. What follows the genesis is served at once, for that only has a guessed rate.

    Raises `CursorMoved` when another process has accounted for the chunk or the head is no longer
    the result's parent, `ClusterChanged`, and `Conflict` for a run that is not running.
    """
    async with database.begin() as connection:
        await advance(connection, training.start, training.end)
        for manifest in training.manifests:
            await _insert(connection, manifest)
        result = training.manifests[-1] if training.manifests else None
        result_id = None if result is None else result.id
        await job_runs.conclude(connection, training, result_id, now_ms)
        if result is not None and result.verdict.result != "refused":
            await _adopt(connection, result, now_ms, canary)
        found = await served.current(connection)
    return maybe(_serving_of, found)


async def record_genesis(
    database: Database, manifest: Manifest, now_ms: int | None = None
) -> Serving:
    """Record the first snapshot and serve it. Raises `Conflict` when one is served already.

    `now_ms` is the time of the promotion, that of the snapshot's making when it is not given.
    """
    time_ms = manifest.created_ms if now_ms is None else now_ms
    async with database.begin() as connection:
        await served.lock(connection)
        if await served.current(connection) is not None:
            limit = "a snapshot is served already"
            raise Conflict("snapshot", str(manifest.id), limit, "Train on from that one.")
        await _insert(connection, manifest)
        await served.put_on(connection, manifest.id, None, "genesis", _ACTOR, time_ms, pinned=False)
        await served.note(connection, "genesis", manifest.id, _ACTOR)
        return _serving_of(await served.current(connection))


async def serving(database: Database) -> Serving | None:
    """What is served; None before the genesis snapshot."""
    async with database.begin() as connection:
        return maybe(_serving_of, await served.current(connection))


async def promote(
    database: Database,
    snapshot_id: UUID,
    actor: str,
    now_ms: int,
    pin: bool = False,
    reason: str = "",
) -> Serving:
    """Serve a snapshot and train on from it; `pin` keeps it when new ones are trained.

    A canary that runs is over. Raises `NotFound`, and `Conflict` for a refused one, without
    exception, or an expired one.
    """
    async with database.begin() as connection:
        await served.lock(connection)
        before = await served.current(connection)
        served.check_may_answer(await served.snapshot_row(connection, snapshot_id))
        below = None if before is None else before.promotion_id
        await served.put_on(connection, snapshot_id, below, "promotion", actor, now_ms, pinned=pin)
        await served.note(connection, "promotion", snapshot_id, actor, reason)
        return await _audited(connection, "promote", actor, before)


async def rollback(
    database: Database,
    actor: str,
    now_ms: int,
    reason: str = "",
    expected_id: UUID | None = None,
) -> Serving:
    """Serve what was served before the present snapshot and pin it.

    The next training starts from it; the cursor stays, so what the present snapshot learned from
    is not learned again. A canary that runs is over. `expected_id`: what the caller wants to get
    away from. Raises `Conflict` when another one serves, or there is nothing to go back to.
    """
    async with database.begin() as connection:
        await served.lock(connection)
        before = await served.current(connection)
        _check_serves(before, expected_id)
        target = None if before is None else await served.below(connection, before)
        if target is None:
            limit = "no earlier snapshot was served that still exists"
            raise Conflict("snapshot", None, limit, "Promote a snapshot by its id.")
        await served.put_on(
            connection, target.snapshot_id, target.below_id, "rollback", actor, now_ms, pinned=True
        )
        await served.note(connection, "rollback", target.snapshot_id, actor, reason)
        return await _audited(connection, "rollback", actor, before)


async def stack_top(database: Database) -> tuple[UUID | None, UUID | None]:
    """What serves now, and what a rollback would serve: found as the rollback finds it."""
    async with database.begin() as connection:
        now = await served.current(connection)
        before = None if now is None else await served.below(connection, now)
    return maybe(_id_of, now), maybe(_id_of, before)


def _id_of(row: Any) -> UUID:
    found: UUID = row.snapshot_id
    return found


def _check_serves(before: Any, expected_id: UUID | None) -> None:
    """A second rollback for one fault, or one after a promotion, would take off a good one."""
    if expected_id is None or (before is not None and before.snapshot_id == expected_id):
        return
    serves = "no snapshot" if before is None else f"snapshot {before.snapshot_id}"
    remedy = "Look at what serves; go back from that, or leave it."
    raise Conflict("serving", str(expected_id), f"{serves} serves now", remedy)


async def pin(database: Database, actor: str, reason: str = "") -> Serving:
    """Keep what is served: nothing is promoted by training or by a canary's rule until unpinned.

    Raises `Conflict` before the genesis.
    """
    return await _set_pinned(database, actor, reason, pinned=True)


async def unpin(database: Database, actor: str, reason: str = "") -> Serving:
    """Let the next accepted snapshot be served again. Raises `Conflict` before the genesis."""
    return await _set_pinned(database, actor, reason, pinned=False)


async def _set_pinned(database: Database, actor: str, reason: str, *, pinned: bool) -> Serving:
    action = "pin" if pinned else "unpin"
    async with database.begin() as connection:
        await served.lock(connection)
        before = await served.needed(connection)
        await connection.execute(tables.serving.update().values(pinned=pinned))
        await served.note(connection, action, before.snapshot_id, actor, reason)
        return await _audited(connection, action, actor, before)


async def get_snapshot(database: Database, snapshot_id: UUID) -> StoredSnapshot:
    """One snapshot. Raises `NotFound`."""
    async with database.begin() as connection:
        return _snapshot_of(await served.snapshot_row(connection, snapshot_id))


async def list_snapshots(
    database: Database, limit: int, after: UUID | None = None
) -> list[StoredSnapshot]:
    """The newest snapshots first; `after` is the id of the last one of the page before."""
    query = snapshots.select().order_by(snapshots.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(snapshots.c.id < after)
    async with database.begin() as connection:
        return [_snapshot_of(row) for row in await connection.execute(query)]


async def loadable(database: Database) -> list[Manifest]:
    """The snapshots that a worker may ever load: neither refused nor given up by retention."""
    may_serve = snapshots.c.expired_at.is_(None) & (snapshots.c.verdict != "refused")
    async with database.begin() as connection:
        rows = await connection.execute(snapshots.select().where(may_serve).order_by("id"))
        return [_snapshot_of(row).manifest for row in rows]


async def recorded_ids(database: Database) -> set[UUID]:
    """Every snapshot that has a row: a folder of another name is an orphan."""
    async with database.begin() as connection:
        return set(await connection.scalars(sa.select(snapshots.c.id)))


async def list_promotions(database: Database, limit: int) -> list[Promotion]:
    """Which snapshot was served from when, the newest first."""
    query = promotions.select().order_by(promotions.c.id.desc()).limit(limit)
    async with database.begin() as connection:
        rows = (await connection.execute(query)).all()
    return [Promotion(r.id, r.snapshot_id, r.reason, r.actor, ms_of(r.promoted_at)) for r in rows]


async def expire_snapshots(database: Database, keep: int, now_ms: int) -> list[UUID]:
    """Mark all but the newest `keep` snapshots and those in use; returns their ids.

    Refused ones never serve, so they are counted by themselves. In use are the served one, pinned
    or not, the head, where the next rollbacks would go, and the snapshots of every canary and
    shadow that runs, with the incumbents that they are compared with. Marked ones cannot be
    promoted any more, so their folders may be deleted afterwards; ids that were marked earlier are
    returned again, in case the deletion did not finish.
    """
    refused = snapshots.c.verdict == "refused"
    newest = [_newest(kind, keep) for kind in (refused, ~refused)]
    in_use = [sa.select(tables.serving.c[name]) for name in ("snapshot_id", "head_id")]
    compared = [
        sa.select(tables.comparisons.c[name]).where(tables.comparisons.c.ended_at.is_(None))
        for name in ("snapshot_id", "incumbent_id")
    ]
    async with database.begin() as connection:
        await served.lock(connection)
        targets = await _rollback_targets(connection)
        old = sa.and_(
            snapshots.c.expired_at.is_(None),
            snapshots.c.id.not_in(targets),
            *(snapshots.c.id.not_in(kept) for kept in (*newest, *in_use, *compared)),
        )
        await connection.execute(snapshots.update().where(old).values(expired_at=at(now_ms)))
        expired = sa.select(snapshots.c.id).where(snapshots.c.expired_at.is_not(None))
        return list(await connection.scalars(expired))


def _newest(kind: sa.ColumnElement[bool], keep: int) -> sa.Select[tuple[UUID]]:
    return sa.select(snapshots.c.id).where(kind).order_by(snapshots.c.id.desc()).limit(keep)


async def _rollback_targets(connection: AsyncConnection) -> list[UUID]:
    """Where the next rollbacks in a row would go, found as they find it."""
    targets: list[UUID] = []
    top = await served.current(connection)
    while top is not None and len(targets) < _ROLLBACKS_KEPT:
        row = await served.below(connection, top)
        top = None if row is None else _Top(row.id, row.snapshot_id)
        targets += [] if top is None else [top.snapshot_id]
    return targets


async def _insert(connection: AsyncConnection, manifest: Manifest) -> None:
    await connection.execute(
        snapshots.insert().values(
            id=manifest.id,
            parent_id=manifest.parent,
            schema_hash=manifest.schema_hash,
            verdict=manifest.verdict.result,
            manifest=msgspec.to_builtins(manifest),
            created_at=at(manifest.created_ms),
        )
    )


async def _adopt(
    connection: AsyncConnection, result: Manifest, now_ms: int, canary: Plan | None
) -> None:
    """Make a trained snapshot the head and, unless it has to wait, let it answer."""
    before = await served.current(connection)
    if before is None:
        await served.put_on(connection, result.id, None, "training", _ACTOR, now_ms, pinned=False)
        return await served.note(connection, "training", result.id, _ACTOR)
    if before.head_id != result.parent:
        raise CursorMoved(
            f"snapshot {result.id} was trained from {result.parent}, but meanwhile training was"
            f" set to go on from {before.head_id}; train the chunk again from there"
        )
    incumbent = await served.snapshot_row(connection, before.snapshot_id)
    if before.pinned or await served.running(connection, "canary") is not None:
        await connection.execute(tables.serving.update().values(head_id=result.id))
    elif canary is not None and incumbent.parent_id is not None:
        await connection.execute(tables.serving.update().values(head_id=result.id))
        given = (result.id, before.snapshot_id, canary, _ACTOR, "trained")
        await served.begin(connection, "canary", *given)
        await served.note(connection, "canary_started", result.id, _ACTOR)
    else:
        below = before.promotion_id
        await served.put_on(connection, result.id, below, "training", _ACTOR, now_ms, pinned=False)
        await served.note(connection, "training", result.id, _ACTOR)


async def _audited(connection: AsyncConnection, action: str, actor: str, before: Any) -> Serving:
    after = _serving_of(await served.current(connection))
    told = [None if one is None else _told(one) for one in (maybe(_serving_of, before), after)]
    await audit.write(connection, actor, action, f"snapshot:{after.snapshot_id}", *told)
    return after


def _told(found: Serving) -> dict[str, object]:
    return {
        "snapshot_id": str(found.snapshot_id),
        "head_id": str(found.head_id),
        "is_pinned": found.is_pinned,
    }


def _serving_of(row: Any) -> Serving:
    return Serving(row.snapshot_id, row.head_id, row.pinned)


def _snapshot_of(row: Any) -> StoredSnapshot:
    manifest = msgspec.convert(row.manifest, Manifest)
    return StoredSnapshot(manifest, maybe(ms_of, row.expired_at))
