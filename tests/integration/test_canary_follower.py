"""When a worker takes a canary up, when it lets it go, and what it reports meanwhile."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from app.serving.bundle import Bundle
from app.serving.state import WorkerState
from app.serving.watcher_canary import CHANGING, CanaryFollower, Loading
from app.storage import comparisons, snapshots
from app.storage.comparisons import Comparison
from app.storage.engine import Database
from app.storage.served import Plan
from models.errors import SnapshotCorrupt
from tests.integration.making import manifest, now_ms
from tests.unit import market

pytestmark = pytest.mark.anyio
ADS = market.random_ads(3, 1)


class Worker:
    """A worker whose bundles need no files, and that stops before it takes one up if told to."""

    def __init__(self, database: Database, incumbent: UUID) -> None:
        self.state = WorkerState(bundle=self.bundle(incumbent))
        self.reports: list[int | None] = []
        self.may_go_on, self.stopped = asyncio.Event(), asyncio.Event()
        self.may_go_on.set()
        ways = Loading(self.load, self.caught_up, self.beat, asyncio.Lock())
        self.follower = CanaryFollower(database, self.state, ways)
        self.damaged: set[UUID] = set()

    @staticmethod
    def bundle(snapshot_id: UUID) -> Bundle:
        """A bundle of this snapshot."""
        made = market.bundle_of(ADS, market.model(1))
        object.__setattr__(made, "snapshot_id", snapshot_id)
        return made

    async def load(self, snapshot_id: UUID, before: Bundle | None) -> Bundle:
        """Load it, unless it is damaged."""
        assert before is self.state.bundle
        if snapshot_id in self.damaged:
            raise SnapshotCorrupt("torn")
        return self.bundle(snapshot_id)

    async def caught_up(self, bundle: Bundle) -> Bundle:
        """Wait until the worker may go on."""
        self.stopped.set()
        await self.may_go_on.wait()
        return bundle

    async def beat(self) -> None:
        """Note what would be reported."""
        self.reports.append(self.follower.reported)


@pytest.fixture
async def incumbent(database: Database) -> UUID:
    """The first snapshot, served."""
    made = manifest()
    await snapshots.record_genesis(database, made)
    return made.id


async def candidate(database: Database) -> UUID:
    """A recorded snapshot that is not served."""
    made = manifest()
    async with database.begin() as connection:
        await snapshots._insert(connection, made)
    return made.id


async def started(database: Database) -> Comparison:
    """A canary that runs."""
    made = await candidate(database)
    return await comparisons.start(database, "canary", made, Plan(0.5), "ann")


async def test_a_canary_is_taken_up_once(database: Database, incumbent: UUID) -> None:
    """And reported; another look changes nothing."""
    worker, canary = Worker(database, incumbent), await started(database)
    await worker.follower.sync()
    taken = worker.state.canary
    assert taken is not None
    assert (taken.comparison_id, taken.share) == (canary.id, 0.5)
    assert worker.reports == [CHANGING, canary.id]
    await worker.follower.sync()
    assert worker.state.canary is taken


async def test_while_it_is_taken_up_the_worker_vouches_for_nothing(
    database: Database, incumbent: UUID
) -> None:
    """So nobody takes it for one that is done with a canary that it is about to answer with."""
    worker, canary = Worker(database, incumbent), await started(database)
    worker.may_go_on.clear()
    taking = asyncio.create_task(worker.follower.sync())
    await worker.stopped.wait()
    assert worker.follower.reported == CHANGING
    await comparisons.stop(database, "canary", canary.snapshot_id, "ann")
    worker.may_go_on.set()
    await taking
    assert worker.follower.reported == canary.id  # for as long as it may answer with it
    await worker.follower.sync()
    assert (worker.state.canary, worker.follower.reported) == (None, None)
    assert worker.reports[-1] is None


async def test_a_canary_that_ended_while_it_loaded_is_not_taken_up(
    database: Database, incumbent: UUID
) -> None:
    """The last look is taken after all the time that loading needs."""
    worker, canary = Worker(database, incumbent), await started(database)
    load = worker.load

    async def ended(snapshot_id: UUID, before: Bundle | None) -> Bundle:
        await comparisons.stop(database, "canary", canary.snapshot_id, "ann")
        return await load(snapshot_id, before)

    ways = Loading(ended, worker.caught_up, worker.beat, asyncio.Lock())
    worker.follower = CanaryFollower(database, worker.state, ways)
    await worker.follower.sync()
    assert worker.state.canary is None
    assert worker.reports == [CHANGING, None]


async def test_the_next_canary_replaces_the_last_one(database: Database, incumbent: UUID) -> None:
    """Also when this worker has not heard of the end of the first."""
    worker, first = Worker(database, incumbent), await started(database)
    await worker.follower.sync()
    await comparisons.stop(database, "canary", first.snapshot_id, "ann")
    second = await started(database)
    await worker.follower.sync()
    assert worker.state.canary is not None
    assert worker.state.canary.comparison_id == second.id
    assert worker.reports == [CHANGING, first.id, None, CHANGING, second.id]


async def test_a_promoted_canary_stays_until_its_swap(database: Database, incumbent: UUID) -> None:
    """The swap takes its bundle over; until then answering with it is right."""
    worker, canary = Worker(database, incumbent), await started(database)
    await worker.follower.sync()
    held = worker.state.canary
    await snapshots.promote(database, canary.snapshot_id, "ann", now_ms())
    await worker.follower.sync()
    assert worker.state.canary is held
    worker.state.bundle = worker.bundle(canary.snapshot_id)
    await worker.follower.sync()
    assert worker.state.canary is None


async def test_a_damaged_canary_is_refused_with_the_reason(
    database: Database, incumbent: UUID
) -> None:
    """The incumbent answers; the reason goes when the canary does."""
    worker, canary = Worker(database, incumbent), await started(database)
    worker.damaged.add(canary.snapshot_id)
    await worker.follower.sync()
    assert worker.state.canary is None
    assert "torn" in (worker.state.canary_fault or "")
    await comparisons.stop(database, "canary", canary.snapshot_id, "ann")
    await worker.follower.sync()
    assert worker.state.canary_fault is None
