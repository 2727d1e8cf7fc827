"""Retraining over real Postgres and real folders: what is learned, recorded, refused, repeated."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import structlog
from msgspec import structs
from prometheus_client import CollectorRegistry

from app.ids import uuid7
from app.settings import Settings
from app.storage import chunks, erasures, job_runs, partitions, snapshots
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.events import EventWriter
from app.storage.job_runs import Run
from jobs import retention, retrain
from jobs.context import Context, Measures
from jobs.schedule import Job, fire
from models import snapshot
from models.errors import ModelError
from models.features import Encoder, pack, parse_schema
from models.offset import State
from models.schema import Schema
from models.tombstone import tombstone
from models.types import Ad, Advertiser, Campaign, Event
from tests.integration.making import click_on, event, now_ms
from tests.unit.conftest import CATEGORIES, SCHEMA

pytestmark = pytest.mark.anyio
ADS = [
    Ad(
        id=key,
        campaign_id=1,
        advertiser_id=1,
        bid_micros=1000 * key,
        features={"category": [CATEGORIES[key % 4]]},
    )
    for key in range(1, 9)
]


@pytest.fixture
async def context(database: Database, tmp_path: Path) -> Context:
    """A deployment with eight ads, partitions and the genesis snapshot; no attribution window."""
    settings = Settings(home=tmp_path, attribution_window_s=0.0, horizon_every_s=1.0)
    made = Context(
        settings=settings,
        database=database,
        schema=parse_schema(SCHEMA),
        store=settings.snapshot_store,
        clock=now_ms,
        log=structlog.get_logger("jobs"),
        measures=Measures(CollectorRegistry()),
    )
    await Catalog(database).import_catalog([Advertiser(1)], [Campaign(1, 1)], ADS, "test")
    await partitions.ensure_partitions(database, now_ms())
    await retrain.ensure_genesis(made)
    return made


async def ingest(context: Context, count: int, seed: int = 0, ads: Sequence[Ad] = ADS) -> None:
    """Write impressions and their clicks, as decisions with tokens would."""
    events = impressions(context.schema, count, seed, ads)
    clicks = [click_on(e) for i, e in enumerate(events) if i % 4 == 0]
    writer = EventWriter(context.database, 10_000)
    try:
        stored = [structs.replace(click, ad_id=1) for click in clicks]
        await writer.write([*events, *stored])
    finally:
        await writer.close()
    await retention.record_horizon(context)


def impressions(schema: Schema, count: int, seed: int, ads: Sequence[Ad] = ADS) -> list[Event]:
    """Impressions of random ads by random users, decided now."""
    rng, encoder = np.random.default_rng(seed), Encoder(schema)
    made = []
    for _ in range(count):
        ad = ads[int(rng.integers(len(ads)))]
        user = encoder.encode_user({"geo": f"g{rng.integers(4)}", "interest": ["shoes"]})
        features = pack(user, encoder.encode_ad(encoder.ad_values(ad)))
        time_ms = now_ms()
        made.append(
            Event(
                type="impression",
                decided_ms=time_ms,
                decision_id=uuid7(time_ms),
                slot=0,
                ad_id=ad.id,
                snapshot_id=uuid4(),
                catalog_version=1,
                price_micros=10,
                propensity=1.0,
                placement="",
                features=features,
            )
        )
    return made


async def newest_run(context: Context) -> Run:
    """The last run that was entered."""
    return (await job_runs.list_runs(context.database, 1))[0]


async def test_a_deployment_starts_from_genesis(context: Context) -> None:
    """The first snapshot is recorded, served and complete on disk; making it again does nothing."""
    serving = await snapshots.serving(context.database)
    assert serving is not None
    assert snapshot.load(context.store / str(serving.snapshot_id)).manifest.parent is None
    await retrain.ensure_genesis(context)
    assert len(await snapshots.list_snapshots(context.database, 10)) == 1


async def test_a_scheduled_run_learns_what_matured(context: Context) -> None:
    """The run is accepted, its snapshot served, and the cursor has passed all impressions."""
    await ingest(context, 400)
    before = await chunks.read_cursor(context.database)
    await retrain.scheduled(context)
    run, serving = await newest_run(context), await snapshots.serving(context.database)
    assert (run.state, run.events) == ("accepted", 400)
    assert serving is not None
    assert serving.snapshot_id == run.snapshot_id
    trained = snapshot.load(context.store / str(run.snapshot_id))
    assert trained.manifest.metrics["clicks"] == 100
    assert (await chunks.read_cursor(context.database)).impressions > before.impressions


async def test_no_event_is_learned_twice(context: Context) -> None:
    """A second run without new events trains nothing."""
    await ingest(context, 50)
    await retrain.scheduled(context)
    await retrain.scheduled(context)
    runs = await job_runs.list_runs(context.database, 10)
    assert [run.events for run in runs] == [50]


async def test_a_backlog_is_learned_chunk_by_chunk(context: Context) -> None:
    """One firing learns all that waits, in runs of bounded size, each event once."""
    small = replace(context, settings=replace(context.settings, chunk_events=100))
    for seed in range(6):
        await ingest(context, 60, seed)
    await retrain.scheduled(small)
    runs = await job_runs.list_runs(context.database, 20)
    assert [run.events for run in runs] == [60] * 6
    await retrain.scheduled(small)
    assert len(await job_runs.list_runs(context.database, 20)) == 6


async def test_an_erased_value_is_not_learned(context: Context) -> None:
    """It leaves the next snapshot's state, probes and model, though it is in the chunk."""
    await ingest(context, 200)
    await retrain.scheduled(context)
    stone = tombstone(context.schema, "geo", "g1")
    given = (stone.feature, stone.hash, stone.missing, "test")
    await erasures.erase(context.database, *given)
    await ingest(context, 200, seed=1)
    await retrain.scheduled(context)
    serving = await snapshots.serving(context.database)
    assert serving is not None
    found = snapshot.load(context.store / str(serving.snapshot_id))
    for keys in (found.state.user.keys, found.model.user_keys, found.probes.user.ids):
        assert stone.hash not in keys
    assert stone.missing in found.state.user.keys


async def test_an_absurd_experiment_is_refused_and_costs_no_events(context: Context) -> None:
    """Its manifest is kept with reasons, the incumbent serves on, the next run learns the chunk."""
    await ingest(context, 200)
    before = await snapshots.serving(context.database)
    await job_runs.request_retrain(context.database, {"step_size": 1e6}, "test", now_ms())
    await retrain.requested(context)
    run = await newest_run(context)
    assert run.state == "refused"
    assert run.reasons
    assert await snapshots.serving(context.database) == before
    assert run.snapshot_id is not None
    refused = await snapshots.get_snapshot(context.database, run.snapshot_id)
    assert refused.manifest.verdict.result == "refused"
    assert not (context.store / str(run.snapshot_id)).exists()
    await retrain.scheduled(context)
    assert (await newest_run(context)).events == 200


async def test_a_chunk_that_is_refused_twice_is_skipped(context: Context) -> None:
    """Recorded with its reasons, both candidates kept, the cursor moved, the incumbent serving."""
    refusing = replace(
        context, schema=parse_schema(SCHEMA + "drift_limit = 1e-6\nscore_limit = 0.01\n")
    )
    await ingest(refusing, 100)
    before = await snapshots.serving(context.database)
    await retrain.scheduled(refusing)
    run = await newest_run(context)
    assert run.state == "skipped"
    assert run.reasons
    assert len(await snapshots.list_snapshots(context.database, 10)) == 3
    assert await snapshots.serving(context.database) == before
    await retrain.scheduled(refusing)
    assert (await newest_run(context)).id == run.id


async def test_a_requested_run_without_events_says_so(context: Context) -> None:
    """It ends as empty with a reason, and no snapshot is made."""
    await job_runs.request_retrain(context.database, {}, "test", now_ms())
    await retrain.requested(context)
    run = await newest_run(context)
    assert run.state == "empty"
    assert "attribution window" in run.reasons[0]


async def test_after_a_rollback_training_goes_on_from_there(context: Context) -> None:
    """The snapshot rolled back to is the parent of the next one, which is not served: pinned."""
    await ingest(context, 100)
    await retrain.scheduled(context)
    first = await snapshots.serving(context.database)
    await ingest(context, 100, seed=1)
    await retrain.scheduled(context)
    await snapshots.rollback(context.database, "test", now_ms())
    await ingest(context, 100, seed=2)
    await retrain.scheduled(context)
    serving, run = await snapshots.serving(context.database), await newest_run(context)
    assert serving is not None
    assert first is not None
    assert serving.snapshot_id == first.snapshot_id
    assert run.snapshot_id is not None
    made = await snapshots.get_snapshot(context.database, run.snapshot_id)
    assert made.manifest.parent == first.snapshot_id


async def test_late_clicks_are_learned_with_the_next_chunk(context: Context) -> None:
    """A click on an impression that was learned as not clicked is counted, and learned, once."""
    shown = impressions(context.schema, 20, seed=5)
    writer = EventWriter(context.database, 10_000)
    try:
        await writer.write(shown)
        await retention.record_horizon(context)
        await retrain.scheduled(context)
        await writer.write([structs.replace(click_on(shown[0]), ad_id=shown[0].ad_id)])
    finally:
        await writer.close()
    await ingest(context, 20, seed=6)
    await retrain.scheduled(context)
    run = await newest_run(context)
    assert run.snapshot_id is not None
    made = await snapshots.get_snapshot(context.database, run.snapshot_id)
    async with context.database.session() as connection:
        clicks = await connection.fetchval("SELECT count(*) FROM events WHERE type = 'click'")
    assert context.measures.late_clicks._value.get() == 1
    assert (run.events, made.manifest.window[-1].clicks) == (20, clicks)
    assert context.measures.oldest_transaction._value.get() >= 0


async def test_a_retired_ad_is_collected_and_a_paused_one_is_not(context: Context) -> None:
    """After the TTL the retired ad's own value is gone and counted; the paused ad keeps its own."""
    brief = parse_schema(SCHEMA.replace("alone = 3", "alone = 3\nvalue_ttl_days = 1e-5"))
    short, catalog = replace(context, schema=brief), Catalog(context.database)
    await ingest(short, 200)
    await retrain.scheduled(short)
    await catalog.patch_ad(7, "test", state="paused")
    await catalog.patch_ad(8, "test", state="retired")
    await asyncio.sleep(1.0)
    for seed in (1, 2):  # age counts up to what the chunk before has learned
        await ingest(short, 50, seed=seed, ads=ADS[:3])
        await retrain.scheduled(short)
    keys = set((await trained_state(short)).ad.keys.tolist())
    own = [int(Encoder(brief).encode_ad(Encoder(brief).ad_values(ad)).ids[0]) for ad in ADS[-2:]]
    assert [key in keys for key in own] == [True, False]
    assert context.measures.collected.labels(side="ad")._value.get() == 1


async def trained_state(context: Context) -> State:
    """The raw state of the snapshot being served."""
    serving = await snapshots.serving(context.database)
    assert serving is not None
    return snapshot.load(context.store / str(serving.snapshot_id)).state


async def test_a_tick_runs_once_whoever_fires_it(context: Context) -> None:
    """Two processes firing the same tick do its work once."""
    done = []

    async def work(_: Context) -> None:
        done.append(1)

    frozen = replace(context, clock=lambda: 1_790_000_000_500)
    await asyncio.gather(*(fire(frozen, Job("once", 60.0, work)) for _ in range(5)))
    assert len(done) == 1


async def test_a_failing_job_is_counted_and_ends_nothing(context: Context) -> None:
    """The error is logged and counted; the scheduler goes on."""

    async def work(_: Context) -> None:
        raise RuntimeError("broken")

    await fire(context, Job("breaks", 60.0, work))
    assert context.measures.failures.labels(job="breaks")._value.get() == 1


async def test_old_snapshots_and_orphans_are_deleted(context: Context) -> None:
    """Retention keeps the served one and the three below it; an orphan goes once it is old."""
    kept = replace(context, settings=replace(context.settings, snapshots_kept=1))
    for seed in range(5):
        await ingest(kept, 60, seed)
        await retrain.scheduled(kept)
    promoted = await snapshots.list_promotions(context.database, 4)
    orphan = context.store / str(uuid4())
    orphan.mkdir()
    os.utime(orphan, (0, 0))
    (context.store / "not-ours").mkdir()
    await retention.keep_snapshots(kept)
    assert len(await snapshots.recorded_ids(context.database)) == 6
    assert {path.name for path in context.store.iterdir()} == {
        "not-ours",
        *(str(one.snapshot_id) for one in promoted),
    }


async def test_a_killed_jobs_process_loses_and_repeats_nothing(
    context: Context, database_url: str, tmp_path: Path
) -> None:
    """kill -9 in mid-training: the run is failed by the next leader, the chunk trained once."""
    await ingest(context, 3000)
    (tmp_path / "features.toml").write_text(SCHEMA)
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "ADSCENT_HOME": str(tmp_path),
        "ADSCENT_FEATURES": str(tmp_path / "features.toml"),
        "ADSCENT_ATTRIBUTION_WINDOW_S": "0",
        "ADSCENT_RETRAIN_EVERY_S": "0.5",
        "ADSCENT_HORIZON_EVERY_S": "0.5",
        "ADSCENT_JOBS_METRICS_PORT": "0",
    }
    first = await asyncio.create_subprocess_exec(sys.executable, "-m", "jobs", env=environment)
    await _until_run(context, "running")
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()
    second = await asyncio.create_subprocess_exec(sys.executable, "-m", "jobs", env=environment)
    try:
        await _until_run(context, "accepted")
    finally:
        second.terminate()
        assert await second.wait() == 0
    runs = await job_runs.list_runs(context.database, 100)
    assert [run.events for run in runs if run.state == "accepted"] == [3000]
    assert "failed" in {run.state for run in runs}


async def _until_run(context: Context, state: str) -> None:
    async with asyncio.timeout(60):
        while True:
            runs = await job_runs.list_runs(context.database, 5)
            if state in {run.state for run in runs}:
                return
            await asyncio.sleep(0.002)


async def test_impressions_of_another_schema_are_left_out(context: Context) -> None:
    """What waits from before a change of the features is passed over and said; the rest learned."""
    await ingest(context, 30)
    writer = EventWriter(context.database)
    await writer.write([event(features=bytes([n])) for n in (1, 255)])
    await chunks.record_horizon(context.database)
    await retrain.scheduled(context)
    [run] = await job_runs.list_runs(context.database, 1)
    assert (run.state, run.events) == ("accepted", 30)
    assert run.reasons[0].startswith("2 impressions were left out")
    before = await chunks.read_cursor(context.database)
    await writer.write([event(features=b"?")])
    await chunks.record_horizon(context.database)
    await retrain.scheduled(context)
    assert len(await job_runs.list_runs(context.database, 9)) == 1
    after = await chunks.read_cursor(context.database)
    assert after.impressions > before.impressions
    await writer.close()


async def test_nothing_is_left_out_while_the_head_is_of_another_schema(context: Context) -> None:
    """A wrong `features.toml` costs no event: runs fail, the cursor stays, put right it goes on."""
    await ingest(context, 30)
    await chunks.record_horizon(context.database)
    before = await chunks.read_cursor(context.database)
    wider = parse_schema(SCHEMA + '[user.extra]\nkind = "categorical"\n')
    with pytest.raises(ModelError):
        await retrain.scheduled(replace(context, schema=wider))
    assert (await chunks.read_cursor(context.database)).impressions == before.impressions
    await retrain.scheduled(context)
    [run, *_] = await job_runs.list_runs(context.database, 2)
    assert (run.state, run.events) == ("accepted", 30)
