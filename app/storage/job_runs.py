"""The bookkeeping of the jobs process: training runs, ticks and who leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import uuid7
from app.storage import audit
from app.storage.engine import Database, at, farewell, maybe, ms_of, notify
from app.storage.errors import Conflict, LeadLost, NotFound
from app.storage.tables import job_ticks, retrain_runs
from app.storage.translation import translated

RunState = Literal[
    "requested", "running", "accepted", "repaired", "refused", "skipped", "empty", "failed"
]

LEADER = 0x41445343_4C454144  # "ADSCLEAD"


@dataclass(frozen=True, slots=True)
class Run:
    """One training run. `overrides`: settings of this run alone; `events`: impressions learned."""

    id: UUID
    state: RunState
    actor: str
    overrides: Mapping[str, object]
    snapshot_id: UUID | None
    events: int
    reasons: tuple[str, ...]
    requested_ms: int
    started_ms: int | None
    finished_ms: int | None


class Concluded(Protocol):
    """What of a training its run keeps."""

    @property
    def run_id(self) -> UUID: ...
    @property
    def state(self) -> RunState: ...
    @property
    def events(self) -> int: ...
    @property
    def reasons(self) -> Sequence[str]: ...


async def request_retrain(
    database: Database, overrides: Mapping[str, object], actor: str, now_ms: int
) -> Run:
    """Ask for a training run; the leader of the jobs processes is told."""
    async with database.begin() as connection:
        run = await _insert(connection, "requested", overrides, actor, now_ms)
        await audit.write(connection, actor, "retrain", f"run:{run.id}", after=overrides)
        await connection.execute(notify("retrain", run_id=str(run.id)))
    return run


async def start_run(database: Database, now_ms: int, actor: str = "schedule") -> Run:
    """Enter a run that nobody asked for and that starts now."""
    async with database.begin() as connection:
        return await _insert(connection, "running", {}, actor, now_ms)


async def claim_requested_run(database: Database, now_ms: int) -> Run | None:
    """Take the oldest requested run and mark it running; None when there is none."""
    oldest = (
        sa.select(retrain_runs.c.id)
        .where(retrain_runs.c.state == "requested")
        .order_by(retrain_runs.c.requested_at, retrain_runs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    update = retrain_runs.update().where(retrain_runs.c.id.in_(oldest))
    claimed = update.values(state="running", started_at=at(now_ms)).returning(retrain_runs)
    async with database.begin() as connection:
        return maybe(_run, (await connection.execute(claimed)).one_or_none())


async def finish(
    database: Database,
    run_id: UUID,
    state: Literal["empty", "failed"],
    reasons: Sequence[str],
    now_ms: int,
) -> None:
    """End a run that moves no cursor. Raises `Conflict` when it is not running."""
    async with database.begin() as connection:
        await _end(connection, run_id, now_ms, state=state, reasons=list(reasons))


async def conclude(
    connection: AsyncConnection, training: Concluded, snapshot_id: UUID | None, now_ms: int
) -> None:
    """Write a run's result inside the caller's transaction. Raises `Conflict`."""
    await _end(
        connection,
        training.run_id,
        now_ms,
        state=training.state,
        snapshot_id=snapshot_id,
        events=training.events,
        reasons=list(training.reasons),
    )


async def fail_abandoned(database: Database, now_ms: int) -> int:
    """A new leader's first act: whatever still runs belongs to a process that is gone."""
    update = retrain_runs.update().where(retrain_runs.c.state == "running")
    reasons = ["the process that ran it ended; the next run takes the same events"]
    async with database.begin() as connection:
        result = await connection.execute(
            update.values(state="failed", reasons=reasons, finished_at=at(now_ms))
        )
    return result.rowcount


async def get_run(database: Database, run_id: UUID) -> Run:
    """One run. Raises `NotFound`."""
    query = retrain_runs.select().where(retrain_runs.c.id == run_id)
    async with database.begin() as connection:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("run", run_id)
    return _run(row)


async def list_runs(database: Database, limit: int, after: UUID | None = None) -> list[Run]:
    """The newest runs first; `after` is the id of the last one of the page before."""
    query = retrain_runs.select().order_by(retrain_runs.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(retrain_runs.c.id < after)
    async with database.begin() as connection:
        return [_run(row) for row in await connection.execute(query)]


async def claim_tick(database: Database, job: str, tick_ms: int) -> bool:
    """Whether this process is the first to take this tick of the job: it runs once, whoever fires.

    Ticks a day older are forgotten.
    """
    tick = at(tick_ms)
    entry = insert(job_ticks).values(job=job, tick=tick).on_conflict_do_nothing()
    old = job_ticks.delete().where(
        job_ticks.c.job == job, job_ticks.c.tick < at(tick_ms - 86_400_000)
    )
    async with database.begin() as connection:
        claimed = (await connection.execute(entry)).rowcount == 1
        await connection.execute(old)
    return claimed


async def free_ticks(database: Database, now_ms: int) -> None:
    """Let the ticks after now be taken again: whoever took them had a clock that was ahead."""
    async with database.begin() as connection:
        await connection.execute(job_ticks.delete().where(job_ticks.c.tick > at(now_ms)))


class Lead:
    """The leader's lock. It belongs to a session: when that ends, another process may lead."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.lost = asyncio.Event()
        connection.add_termination_listener(lambda _: self.lost.set())

    async def check(self) -> None:
        """Raise `LeadLost` unless the session that holds the lock still answers."""
        try:
            await self._connection.execute("SELECT 1", timeout=5)
        except Exception as error:
            self.lost.set()
            raise LeadLost(f"the session of the leader lock has ended ({error})") from error


@asynccontextmanager
async def try_lead(database: Database) -> AsyncIterator[Lead | None]:
    """Lead while the block lasts; None when another process leads.

    `Lead.lost` is set as soon as the session is seen to be gone; call `check` before work that
    must have one leader. The cursor is fenced besides: a leader that lost its lock cannot commit.
    """
    # Not `database.session`: that takes the errors of the block for errors of the database.
    connection = await database.raw()
    try:
        with translated():
            held = await connection.fetchval("SELECT pg_try_advisory_lock($1)", LEADER)
        yield Lead(connection) if held else None
    finally:
        await farewell(connection)


async def _insert(
    connection: AsyncConnection,
    state: RunState,
    overrides: Mapping[str, object],
    actor: str,
    now_ms: int,
) -> Run:
    started_at = at(now_ms) if state == "running" else None
    entry = retrain_runs.insert().values(
        id=uuid7(now_ms),
        state=state,
        actor=actor,
        overrides=dict(overrides),
        requested_at=at(now_ms),
        started_at=started_at,
    )
    return _run((await connection.execute(entry.returning(retrain_runs))).one())


async def _end(connection: AsyncConnection, run_id: UUID, now_ms: int, **values: Any) -> None:
    running = retrain_runs.update().where(
        retrain_runs.c.id == run_id, retrain_runs.c.state == "running"
    )
    result = await connection.execute(running.values(finished_at=at(now_ms), **values))
    if result.rowcount != 1:
        limit = "only a running run can end"
        raise Conflict("run", str(run_id), limit, "Claim or start a run first.")


def _run(row: Any) -> Run:
    return Run(
        row.id,
        cast(RunState, row.state),
        row.actor,
        row.overrides,
        row.snapshot_id,
        row.events,
        tuple(row.reasons),
        ms_of(row.requested_at),
        maybe(ms_of, row.started_at),
        maybe(ms_of, row.finished_at),
    )
