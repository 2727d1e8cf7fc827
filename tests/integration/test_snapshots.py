"""Snapshots are recorded with the cursor or not at all; what is served is a stack."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import msgspec
import pytest

from app.storage import chunks, job_runs, snapshots
from app.storage.audit import list_audit
from app.storage.chunks import Cursor
from app.storage.engine import CHANNEL, Database
from app.storage.errors import Conflict, CursorMoved, NotFound
from tests.integration.making import eventually, manifest, now_ms, training

pytestmark = pytest.mark.anyio


@pytest.fixture
async def genesis(database: Database) -> UUID:
    """The first snapshot, served."""
    made = manifest()
    await snapshots.record_genesis(database, made)
    return made.id


async def trained(database: Database, parent: UUID, result: str = "accepted") -> UUID:
    """Record a training from `parent` with this verdict; the id of its snapshot."""
    made = manifest(parent, result)  # type: ignore[arg-type]
    start = await chunks.read_cursor(database)
    await snapshots.record(database, await training(database, start, [made]), now_ms())
    return made.id


async def served(database: Database) -> tuple[UUID, UUID, bool]:
    """Served snapshot, head, pinned."""
    found = await snapshots.serving(database)
    assert found is not None
    return found.snapshot_id, found.head_id, found.is_pinned


async def test_nothing_is_served_before_the_genesis(database: Database) -> None:
    """The first snapshot is served and is the head; there is only one first."""
    assert await snapshots.serving(database) is None
    first = manifest()
    found = await snapshots.record_genesis(database, first)
    assert (found.snapshot_id, found.head_id, found.is_pinned) == (first.id, first.id, False)
    with pytest.raises(Conflict):
        await snapshots.record_genesis(database, manifest())


@pytest.mark.parametrize("result", ["accepted", "repaired"])
async def test_good_snapshot_is_served_with_its_cursor(
    database: Database, genesis: UUID, result: str
) -> None:
    """One transaction moves the cursor, ends the run, promotes the snapshot and tells everyone."""
    made = manifest(genesis, result)  # type: ignore[arg-type]
    given = await training(database, await chunks.read_cursor(database), [made], Cursor(50, 60, 1))
    heard: list[dict[str, object]] = []
    async with database.session() as listener:
        await listener.add_listener(CHANNEL, lambda *told: heard.append(json.loads(told[3])))
        await snapshots.record(database, given, now_ms())
        await eventually(lambda: bool(heard))
    assert heard == [{"kind": "snapshot", "snapshot_id": str(made.id)}]
    assert await served(database) == (made.id, made.id, False)
    assert await chunks.read_cursor(database) == Cursor(50, 60, 1)
    run = await job_runs.get_run(database, given.run_id)
    assert (run.state, run.snapshot_id, run.events) == (result, made.id, 10)
    assert (await snapshots.get_snapshot(database, made.id)).manifest == made


async def test_refused_snapshot_moves_the_cursor_and_is_not_served(
    database: Database, genesis: UUID
) -> None:
    """Both candidates of a skipped chunk are recorded, the incumbent stays, the chunk is done."""
    tried = [manifest(genesis, "refused"), manifest(genesis, "refused")]
    await snapshots.record(
        database, await training(database, await chunks.read_cursor(database), tried), now_ms()
    )
    assert await served(database) == (genesis, genesis, False)
    assert (await chunks.read_cursor(database)).fence == 1
    listed = await snapshots.list_snapshots(database, 9)
    assert {one.manifest.id for one in listed} == {genesis, *(one.id for one in tried)}
    with pytest.raises(Conflict, match="never served"):
        await snapshots.promote(database, tried[0].id, "ann", now_ms())
    assert await served(database) == (genesis, genesis, False)


async def test_empty_chunk_is_recorded_without_a_snapshot(
    database: Database, genesis: UUID
) -> None:
    """The cursor moves, the run is empty, nothing else changes."""
    given = await training(database, await chunks.read_cursor(database), [])
    found = await snapshots.record(database, given, now_ms())
    assert found is not None
    assert found.snapshot_id == genesis
    assert (await job_runs.get_run(database, given.run_id)).state == "empty"
    assert (await chunks.read_cursor(database)).fence == 1


async def test_second_recorder_of_a_chunk_leaves_no_trace(
    database: Database, genesis: UUID
) -> None:
    """A leader that lost its lock cannot commit what another has accounted for."""
    start = await chunks.read_cursor(database)
    await trained(database, genesis)
    stale = await training(database, start, [manifest(genesis)])
    before = await served(database)
    with pytest.raises(CursorMoved):
        await snapshots.record(database, stale, now_ms())
    assert await served(database) == before
    assert (await job_runs.get_run(database, stale.run_id)).state == "running"
    with pytest.raises(NotFound):
        await snapshots.get_snapshot(database, stale.manifests[0].id)


async def test_rollback_during_training_wins(database: Database, genesis: UUID) -> None:
    """What was trained from a snapshot that was rolled back meanwhile is not adopted."""
    second = await trained(database, genesis)
    start = await chunks.read_cursor(database)
    given = await training(database, start, [manifest(second)])
    await snapshots.rollback(database, "ann", now_ms())
    with pytest.raises(CursorMoved, match="go on from"):
        await snapshots.record(database, given, now_ms())
    assert await chunks.read_cursor(database) == start
    assert await served(database) == (genesis, genesis, True)


async def test_rollback_goes_back_one_by_one_and_pins(database: Database, genesis: UUID) -> None:
    """Each rollback takes the top off; at the bottom there is nothing to go back to."""
    second = await trained(database, genesis)
    await trained(database, second)
    cursor = await chunks.read_cursor(database)
    found = await snapshots.rollback(database, "ann", now_ms())
    assert (found.snapshot_id, found.head_id, found.is_pinned) == (second, second, True)
    assert (await snapshots.rollback(database, "ann", now_ms())).snapshot_id == genesis
    with pytest.raises(Conflict, match="no earlier"):
        await snapshots.rollback(database, "ann", now_ms())
    assert await chunks.read_cursor(database) == cursor


async def test_rollback_of_a_promotion_returns_to_what_was_there(
    database: Database, genesis: UUID
) -> None:
    """After an older one was promoted, a rollback serves the newer one again."""
    second = await trained(database, genesis)
    await snapshots.promote(database, genesis, "ann", now_ms())
    assert (await snapshots.rollback(database, "ann", now_ms())).snapshot_id == second


async def test_pinned_snapshot_stays_while_training_goes_on(
    database: Database, genesis: UUID
) -> None:
    """New snapshots become the head but are not served until the pin is taken off."""
    second = await trained(database, genesis)
    await snapshots.rollback(database, "ann", now_ms())
    third = await trained(database, genesis)
    assert await served(database) == (genesis, third, True)
    await snapshots.unpin(database, "ann")
    fourth = await trained(database, third)
    assert await served(database) == (fourth, fourth, False)
    assert second != fourth


async def test_promotion_sets_the_head_and_the_pin(database: Database, genesis: UUID) -> None:
    """A promotion is one call: served, trained on from, pinned if asked; and audited."""
    await trained(database, genesis)
    found = await snapshots.promote(database, genesis, "ann", now_ms(), pin=True)
    assert (found.snapshot_id, found.head_id, found.is_pinned) == (genesis, genesis, True)
    [row] = await list_audit(database, 1)
    assert (row.actor, row.action, row.subject) == ("ann", "promote", f"snapshot:{genesis}")
    [newest, *_] = await snapshots.list_promotions(database, 9)
    assert (newest.snapshot_id, newest.reason, newest.actor) == (genesis, "promotion", "ann")


async def test_unknown_snapshot_is_named(database: Database, genesis: UUID) -> None:
    """Neither promoting nor reading what is not there does anything."""
    with pytest.raises(NotFound):
        await snapshots.promote(database, uuid4(), "ann", now_ms())
    assert (await served(database))[0] == genesis


async def test_snapshots_are_listed_newest_first(database: Database, genesis: UUID) -> None:
    """Pages follow each other by id."""
    ids = [genesis]
    for _ in range(4):
        ids.append(await trained(database, ids[-1]))
    first = await snapshots.list_snapshots(database, 3)
    rest = await snapshots.list_snapshots(database, 3, after=first[-1].manifest.id)
    assert [one.manifest.id for one in first + rest] == sorted(ids, reverse=True)


async def test_retention_keeps_what_is_needed(database: Database, genesis: UUID) -> None:
    """The newest, the served one and the head stay; the others cannot be promoted any more."""
    ids = [genesis]
    for _ in range(6):
        ids.append(await trained(database, ids[-1]))
    await snapshots.promote(database, genesis, "ann", now_ms(), pin=True)
    newest = await trained(database, genesis)
    assert set(await snapshots.expire_snapshots(database, 1, now_ms())) == set(ids[1:4])
    assert set(await snapshots.expire_snapshots(database, 1, now_ms())) == set(ids[1:4])
    with pytest.raises(Conflict, match="retention"):
        await snapshots.promote(database, ids[3], "ann", now_ms())
    assert await served(database) == (genesis, newest, True)


async def test_retention_keeps_where_rollbacks_go(database: Database, genesis: UUID) -> None:
    """The next three rollbacks find what they go back to, also the same snapshot twice."""
    ids = [genesis]
    for _ in range(4):
        ids.append(await trained(database, ids[-1]))
    await snapshots.promote(database, ids[1], "ann", now_ms())
    await snapshots.promote(database, ids[4], "ann", now_ms())
    expected = [ids[1], ids[4], ids[3]]
    assert set(await snapshots.expire_snapshots(database, 1, now_ms())) == {ids[0], ids[2]}
    for target in expected:
        assert (await snapshots.rollback(database, "ann", now_ms())).snapshot_id == target
    assert (await snapshots.rollback(database, "ann", now_ms())).snapshot_id == ids[1]
    with pytest.raises(Conflict, match="no earlier"):
        await snapshots.rollback(database, "ann", now_ms())


async def test_refused_snapshots_push_out_no_other(database: Database, genesis: UUID) -> None:
    """They count by themselves: what may serve stays, and of them the newest."""
    ids = [genesis]
    for _ in range(6):
        ids.append(await trained(database, ids[-1]))
    refused = [await trained(database, ids[-1], "refused") for _ in range(7)]
    expired = set(await snapshots.expire_snapshots(database, 6, now_ms()))
    assert expired == {genesis, refused[0]}


async def test_retention_keeps_a_head_that_is_not_the_newest(
    database: Database, genesis: UUID
) -> None:
    """Ids are of their makers' clocks, one may be behind, and training goes on from the head."""
    behind = manifest()
    await snapshots.pin(database, "ann")
    second = await trained(database, genesis)
    made = msgspec.structs.replace(behind, parent=second)
    start = await chunks.read_cursor(database)
    await snapshots.record(database, await training(database, start, [made]), now_ms())
    assert await served(database) == (genesis, behind.id, True)
    assert await snapshots.expire_snapshots(database, 1, now_ms()) == []
    third = await trained(database, behind.id)
    assert set(await snapshots.expire_snapshots(database, 1, now_ms())) == {second, behind.id}
    assert await served(database) == (genesis, third, True)


async def test_rollback_from_another_snapshot_does_nothing(
    database: Database, genesis: UUID
) -> None:
    """Who wants to get away from what serves no more is told what serves; the right one goes."""
    second = await trained(database, genesis)
    third = await trained(database, second)
    with pytest.raises(Conflict, match=f"snapshot {third} serves now"):
        await snapshots.rollback(database, "ann", now_ms(), expected_id=second)
    assert await served(database) == (third, third, False)
    found = await snapshots.rollback(database, "ann", now_ms(), expected_id=third)
    assert found.snapshot_id == second


async def test_run_that_was_failed_meanwhile_records_nothing(
    database: Database, genesis: UUID
) -> None:
    """A process that another leader took for dead cannot end its run."""
    start = await chunks.read_cursor(database)
    given = await training(database, start, [manifest(genesis)])
    await job_runs.fail_abandoned(database, now_ms())
    with pytest.raises(Conflict, match="running"):
        await snapshots.record(database, given, now_ms())
    assert await chunks.read_cursor(database) == start
