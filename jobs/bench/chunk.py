"""A whole training chunk: from rows in PostgreSQL to a published snapshot that is recorded."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from app.ids import uuid7
from app.storage import job_runs, snapshots
from app.storage.catalog import Catalog
from app.storage.chunks import read_chunk
from app.storage.snapshots import Training
from jobs.bench.deployment import Deployment
from jobs.bench.report import Measure, Target, measure
from jobs.catalog_ads import ad_set
from jobs.retrain import batch_of
from models import snapshot
from models.cycle import learn
from models.index import AdSet
from models.publish import publish
from models.scoring import chunk_scores
from models.snapshot import Snapshot
from models.trainer import TrainerSettings, train
from models.types import Batch

TARGET_S = 6.0
_FULL = 1_000_000
_TIMEOUT_S = 600.0
_ABOUT = {
    "read": "`read_chunk`: bounds, impressions and clicks copied, put in order, joined",
    "catalog": "the catalog read and its ads encoded",
    "load": "the incumbent's folder checked and mapped",
    "unpack": "features unpacked into arrays",
    "learn": "`cycle.learn`, with the three below and the gate",
    "write": "the snapshot written and flushed",
    "record": "snapshot, cursor and run recorded in one transaction",
    "learn_score": "of `learn`: the chunk scored by the incumbent",
    "learn_train": "of `learn`: the trainer's pass",
    "learn_publish": "of `learn`: projection, certified range, index",
}


class Stages:
    """Seconds by stage, over rounds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block as one round of a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - started)


async def chunk_measures(deployment: Deployment, events: int, rounds: int) -> dict[str, Measure]:
    """Rounds of new events each: the scheduled job as a whole, then one more taken apart.

    The incumbent has learned an earlier chunk, as any but the first one has.
    """
    earlier = max(events // 5, 100)
    await deployment.ingest(earlier)
    await deployment.train(earlier)
    whole, floor, stages = [], [], Stages()
    for _ in range(rounds):
        await deployment.ingest(events)
        start = await _cursor(deployment)
        whole.append(await deployment.train(events))
        floor.append(await _plain_copy(deployment, start))
    await deployment.ingest(events)
    await _taken_apart(deployment, stages)
    await deployment.check(events)
    return _measures(whole, floor, stages, events)


def _measures(
    whole: list[float], floor: list[float], stages: Stages, events: int
) -> dict[str, Measure]:
    about = (
        f"the scheduled job on {events:,} new impressions and their clicks: read, encode, train,"
        " gate, publish, write, record. Baseline: the same rows leaving the table by a plain COPY"
    )
    target: Target | None = ("value at most", TARGET_S) if events == _FULL else None
    found = {"chunk": measure(whole, "s", about, baseline=floor, target=target)}
    for name, text in _ABOUT.items():
        found[f"chunk_{name}"] = measure(stages.seconds[name], "s", text)
    return found


async def _cursor(deployment: Deployment) -> int:
    async with deployment.context.database.session() as connection:
        xid: int = await connection.fetchval("SELECT impressions_xid FROM training_cursor")
    return xid


async def _plain_copy(deployment: Deployment, start: int) -> float:
    async def drop(_: bytes) -> None:
        return

    async with deployment.context.database.session(command_timeout=_TIMEOUT_S) as connection:
        started = time.perf_counter()
        await connection.copy_from_query(
            "SELECT * FROM events WHERE xid >= $1", start, output=drop, format="binary"
        )
        return time.perf_counter() - started


async def _taken_apart(deployment: Deployment, stages: Stages) -> None:
    """What the scheduled job does, by the same functions, a stage at a time."""
    context = deployment.context
    database, schema, now_ms = context.database, context.schema, context.clock()
    run = await job_runs.start_run(database, now_ms)
    with stages.stage("read"):
        chunk = await read_chunk(database, context.settings.attribution_window_s)
    with stages.stage("catalog"):
        ads = ad_set((await Catalog(database).changes_since(0)).ads, schema)
    with stages.stage("load"):
        incumbent = snapshot.load(context.store / str(await deployment.served()))
    with stages.stage("unpack"):
        batch = batch_of(chunk, schema)
    settings = TrainerSettings.of(schema)
    ids = (uuid7(now_ms), uuid7(now_ms))
    with stages.stage("learn"):
        outcome = await asyncio.to_thread(
            learn, incumbent, batch, ads, schema, settings, snapshot_ids=ids, now_ms=now_ms
        )
    with stages.stage("write"):
        sealed = snapshot.write(context.store, outcome.candidate)
    training = Training(run.id, "accepted", [sealed], chunk.start, chunk.end, len(chunk))
    with stages.stage("record"):
        await snapshots.record(database, training, now_ms)
    _learn_apart(stages, incumbent, batch, ads, deployment)


def _learn_apart(
    stages: Stages, incumbent: Snapshot, batch: Batch, ads: AdSet, deployment: Deployment
) -> None:
    """The heavy parts of `learn` again, each by itself."""
    schema = deployment.context.schema
    settings = TrainerSettings.of(schema)
    with stages.stage("learn_score"):
        chunk_scores(incumbent.model, batch, settings)
    with stages.stage("learn_train"):
        trained = train(incumbent.state, batch, schema, settings)
    with stages.stage("learn_publish"):
        publish(trained.state, ads, schema, settings.radii)
