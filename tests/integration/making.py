"""Makers of events, manifests and other things that the storage tests write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal
from uuid import UUID, uuid4

from app.ids import uuid7
from app.storage import job_runs
from app.storage.chunks import Cursor
from app.storage.engine import Database
from app.storage.snapshots import Training
from models.snapshot import Manifest, Verdict
from models.types import Event, EventType

DAY_MS = 86_400_000
SNAPSHOT = uuid4()


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def event(
    type_: EventType = "impression",
    decided_ms: int | None = None,
    decision_id: UUID | None = None,
    features: bytes = b"packed",
    placement: str = "home",
) -> Event:
    """An event of ad 7 in slot 0, decided now unless told otherwise."""
    time_ms = now_ms() if decided_ms is None else decided_ms
    return Event(
        type=type_,
        decided_ms=time_ms,
        decision_id=decision_id or uuid7(time_ms),
        slot=0,
        ad_id=7,
        snapshot_id=SNAPSHOT,
        catalog_version=3,
        price_micros=1500,
        propensity=0.25,
        placement=placement,
        features=features,
    )


def click_on(impression: Event) -> Event:
    """The click on an impression, as its token proves it."""
    return event("click", impression.decided_ms, impression.decision_id)


def manifest(
    parent: UUID | None = None,
    result: Literal["accepted", "repaired", "refused"] = "accepted",
) -> Manifest:
    """The manifest of a snapshot without parameters."""
    time_ms = now_ms()
    return Manifest(
        id=uuid7(time_ms),
        parent=parent,
        created_ms=time_ms,
        schema_hash="abc",
        bias=-3.0,
        bias_precision=1.0,
        interaction_weight=0.0,
        interaction_precision=1.0,
        seed=1,
        user_features=2,
        overlap=2,
        alone=4,
        verdict=Verdict(result, ()),
        metrics={"log_loss": 0.5},
    )


async def training(
    database: Database, start: Cursor, manifests: Sequence[Manifest], end: Cursor | None = None
) -> Training:
    """A training with a run that is running; its state is the verdict of the last manifest."""
    run = await job_runs.start_run(database, now_ms())
    state: job_runs.RunState = manifests[-1].verdict.result if manifests else "empty"
    moved = end or Cursor(start.impressions, start.clicks, start.fence + 1)
    return Training(run.id, state, manifests, start, moved, events=10)


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)
