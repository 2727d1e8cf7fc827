"""Retraining: the next chunk of events through a training cycle, and its outcome recorded.

A crash anywhere leaves the incumbent and the cursor as they were: arrays are written under a name
that nothing points to yet, and one transaction records the snapshot, moves the cursor and ends the
run. A folder that no transaction recorded is an orphan, swept later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from app import tracing
from app.ids import uuid7
from app.storage import erasures, job_runs, snapshots
from app.storage.catalog import Catalog
from app.storage.chunks import Chunk, note_window, read_chunk, skip
from app.storage.comparisons import plan_of
from app.storage.errors import CursorMoved
from app.storage.job_runs import Run, RunState
from app.storage.served import Plan
from app.storage.snapshots import Training
from jobs.catalog_ads import ad_set
from jobs.catalog_image import image_of
from jobs.context import Context
from models import snapshot
from models.cycle import Outcome, genesis_snapshot, learn
from models.erasure import NOTHING, Erased, without
from models.features import Encoder, fits, stack, unpack
from models.index import AdSet
from models.offset import genesis
from models.schema import Schema
from models.snapshot import Manifest
from models.trainer import TrainerSettings, train
from models.types import Batch, CatalogChanges


async def ensure_genesis(context: Context) -> None:
    """Record the first snapshot of a deployment that has none; otherwise do nothing."""
    if await snapshots.serving(context.database) is not None:
        return
    now_ms = context.clock()
    changes, ads = await _catalog(context)
    made = await asyncio.to_thread(
        genesis_snapshot, context.schema, ads, snapshot_id=uuid7(now_ms), now_ms=now_ms
    )
    image = image_of(changes, context.schema)
    sealed = await asyncio.to_thread(snapshot.write, context.store, made, image)
    await asyncio.to_thread(context.snapshots.publish, sealed)
    await snapshots.record_genesis(context.database, sealed)
    context.log.info("genesis_recorded", snapshot_id=str(sealed.id))


async def warm_up(context: Context) -> None:
    """Compile the kernel for this schema's shape, or load it, before a chunk needs it."""
    started_ms = context.clock()
    await asyncio.to_thread(_train_once, context.schema)
    context.log.info("kernel_ready", milliseconds=context.clock() - started_ms)


def _train_once(schema: Schema) -> None:
    encoder = Encoder(schema)
    user, ad = encoder.encode_user({}), encoder.encode_ad({})
    sides = stack([user], len(schema.user)), stack([ad], len(schema.ad))
    zero = np.zeros(1, np.int64)
    event = Batch(zero, zero, np.zeros(1, np.float32), *sides)
    start = genesis(schema, schema.model.base_rate, schema.model.seed)
    train(start, event, schema, TrainerSettings.of(schema))


async def scheduled(context: Context) -> None:
    """Train on what has matured, if anything has: chunk by chunk, the oldest first.

    A backlog takes no more memory than one chunk, and between two of them others get their turn.
    """
    is_behind = False
    while is_behind := await _next_trained(context, is_behind):
        context.log.info("backlog_goes_on")


async def _next_trained(context: Context, is_behind: bool) -> bool:
    """Train on the next chunk, if there is one; whether more was ready than it took."""
    async with context.training:
        with tracing.span("retrain"):
            return await _trained_on_next(context, is_behind)


async def _trained_on_next(context: Context, is_behind: bool) -> bool:
    chunk = await _next_chunk(context, is_behind)
    if len(chunk):
        run = await job_runs.start_run(context.database, context.clock())
        await _train(context, run, chunk)
    else:
        await _skipped(context, chunk)
    return chunk.is_cut


async def _skipped(context: Context, chunk: Chunk) -> None:
    """Nothing of the chunk can be learned. Another leader may have been faster to say so."""
    if chunk.left_out:
        with suppress(CursorMoved):
            await skip(context.database, chunk)


async def requested(context: Context) -> None:
    """Carry out the runs that were asked for through the API, one after the other."""
    async with context.training:
        while run := await job_runs.claim_requested_run(context.database, context.clock()):
            with tracing.span("retrain", run_id=str(run.id)):
                await _carried_out(context, run)


async def _carried_out(context: Context, run: Run) -> None:
    chunk = await _next_chunk(context)
    if len(chunk):
        await _train(context, run, chunk)
        return
    await _skipped(context, chunk)
    reasons = _left_out(chunk) or [
        "no impression has passed its attribution window since the last run"
    ]
    await job_runs.finish(context.database, run.id, "empty", reasons, context.clock())
    context.measures.runs.labels(state="empty").inc()


async def _next_chunk(context: Context, is_behind: bool = False) -> Chunk:
    settings = context.settings
    given = (context.database, settings.attribution_window_s, settings.chunk_events)
    with tracing.span("retrain.read_chunk"):
        await note_window(context.database, settings.attribution_window_s)
        chunk = await read_chunk(*given, is_behind=is_behind)
    return await _fitting(context, chunk)


async def _fitting(context: Context, chunk: Chunk) -> Chunk:
    """Without what has the features of another schema: it can never be learned.

    Where the head itself is of another schema nothing is left out. That run fails and says so, and
    once `features.toml` is put right every event is still there.
    """
    schema = context.schema
    rows = await asyncio.to_thread(fits, schema, chunk.features)
    late_rows = await asyncio.to_thread(fits, schema, chunk.late.features)
    if (rows.all() and late_rows.all()) or not await _goes_on(context):
        return chunk
    kept = chunk.only(rows, late_rows)
    context.measures.left_out.inc(kept.left_out)
    context.log.warning("impressions_of_another_schema", left_out=kept.left_out)
    return kept


async def _train(context: Context, run: Run, chunk: Chunk) -> None:
    """One run from its chunk to its record. A failure is recorded in the run, then raised."""
    log = context.log.bind(run_id=str(run.id), events=len(chunk))
    tracing.note(run_id=str(run.id), events=len(chunk))
    try:
        with context.measures.training.time():
            recorded = await _learn_and_record(context, run, chunk)
    except CursorMoved as error:
        # Another leader or a rollback was faster. Nothing was recorded; the next run starts anew.
        await _fail(context, run, str(error))
        log.warning("run_overtaken", reason=str(error))
    except Exception as error:
        await _fail(context, run, f"{type(error).__name__}: {error}")
        raise
    else:
        context.measures.runs.labels(state=recorded.state).inc()
        if recorded.end != recorded.start:  # else the next run learns the same late clicks
            context.measures.late_clicks.inc(len(chunk.late))
        collected = _count_collected(context, recorded)
        reasons = list(recorded.reasons)
        made = {"snapshot_id": str(recorded.manifests[-1].id), "state": recorded.state}
        tracing.note(**made)
        log.info("run_ended", **made, reasons=reasons, collected=collected)


def _count_collected(context: Context, recorded: Training) -> int:
    """How many values are gone with what the run recorded; a refused candidate takes none away."""
    result, total = recorded.manifests[-1], 0
    if result.verdict.result == "refused":
        return 0
    for side in ("user", "ad"):
        count = int(result.metrics[f"collected_{side}_values"] or 0)
        context.measures.collected.labels(side=side).inc(count)
        total += count
    return total


async def _learn_and_record(context: Context, run: Run, chunk: Chunk) -> Training:
    serving = await snapshots.serving(context.database)
    if serving is None:
        raise LookupError("no snapshot is served: the genesis snapshot is missing")
    with tracing.span("retrain.catalog"):
        changes, ads = await _catalog(context)
    head = await snapshots.get_snapshot(context.database, serving.head_id)
    erased = await erasures.read(context.database)
    outcome = await asyncio.to_thread(
        _learned, context, head.manifest, chunk, ads, run.overrides, erased
    )
    with tracing.span("retrain.write"):
        sealed = await asyncio.to_thread(_written, context, outcome, changes)
    training = _training(run, chunk, sealed)
    with tracing.span("retrain.record"):
        await snapshots.record(context.database, training, context.clock(), _canary(context))
    return training


def _learned(
    context: Context,
    head: Manifest,
    chunk: Chunk,
    ads: AdSet,
    overrides: Mapping[str, object],
    erased: Erased,
) -> Outcome:
    with tracing.span("retrain.load"):
        incumbent = without(snapshot.load(context.snapshots.fetch(head), head), erased)
    with tracing.span("retrain.unpack"):
        batch = batch_of(chunk, context.schema, erased)
        late = late_of(chunk, context.schema, erased)
    now_ms = context.clock()
    with tracing.span("retrain.learn"):
        return learn(
            incumbent,
            batch,
            ads,
            context.schema,
            overridden(TrainerSettings.of(context.schema), overrides),
            late=late,
            snapshot_ids=(uuid7(now_ms), uuid7(now_ms)),
            now_ms=now_ms,
            retries=not overrides,
            threads=context.settings.train_threads,
        )


def _canary(context: Context) -> Plan | None:
    """How a trained snapshot begins: as a canary where the settings give it a share."""
    share = context.settings.canary_share
    return plan_of(context.settings, share) if share > 0 else None


def batch_of(chunk: Chunk, schema: Schema, erased: Erased = NOTHING) -> Batch:
    """The chunk's impressions as the trainer takes them. Raises `FeatureValueInvalid`."""
    user, ad = unpack(schema, chunk.features)
    return Batch(chunk.time_ms, chunk.ad_id, chunk.label, erased.rows(user), ad)


def late_of(chunk: Chunk, schema: Schema, erased: Erased = NOTHING) -> Batch:
    """Earlier impressions whose click came only now, as the trainer takes them: all clicked."""
    user, ad = unpack(schema, chunk.late.features)
    clicked = np.ones(len(chunk.late), np.float32)
    return Batch(chunk.late.time_ms, chunk.late.ad_id, clicked, erased.rows(user), ad)


def overridden(settings: TrainerSettings, overrides: Mapping[str, object]) -> TrainerSettings:
    """The settings of a run that was asked for; radii can only become tighter."""
    changes = {name: float(str(value)) for name, value in overrides.items() if value is not None}
    for name in ("user_radius", "ad_radius"):
        if name in changes:
            changes[name] = min(changes[name], getattr(settings, name))
    return replace(settings, **changes)  # type: ignore[arg-type]  # every override is a float field


def _written(context: Context, outcome: Outcome, changes: CatalogChanges) -> list[Manifest]:
    """Write what may serve; a refused candidate keeps its manifest and loses its arrays."""
    *earlier, last = outcome.attempts
    if last.verdict.result == "refused":
        return [*earlier, last]
    image = image_of(changes, context.schema)
    sealed = snapshot.write(context.store, outcome.candidate, image)
    context.snapshots.publish(sealed)
    return [*earlier, sealed]


def _training(run: Run, chunk: Chunk, manifests: list[Manifest]) -> Training:
    result = manifests[-1]
    refused = result.verdict.result == "refused"
    # An experiment that fails costs no events: the cursor stays, the next run learns them.
    stays = refused and bool(run.overrides)
    return Training(
        run_id=run.id,
        state=_state(result, stays),
        manifests=manifests,
        start=chunk.start,
        end=chunk.start if stays else chunk.end,
        events=len(chunk),
        reasons=[*_left_out(chunk), *(why for one in manifests for why in one.verdict.reasons)],
    )


async def _goes_on(context: Context) -> bool:
    """Whether the snapshot that training goes on from is of the present schema."""
    serving = await snapshots.serving(context.database)
    if serving is None:
        return False
    head = await snapshots.get_snapshot(context.database, serving.head_id)
    return head.manifest.schema_hash == context.schema.hash


def _left_out(chunk: Chunk) -> list[str]:
    if not chunk.left_out:
        return []
    return [f"{chunk.left_out} impressions were left out: their features are of another schema"]


def _state(result: Manifest, stays: bool) -> RunState:
    if result.verdict.result != "refused":
        return result.verdict.result
    return "refused" if stays else "skipped"


async def _fail(context: Context, run: Run, reason: str) -> None:
    context.measures.runs.labels(state="failed").inc()
    await job_runs.finish(context.database, run.id, "failed", [reason], context.clock())


async def _catalog(context: Context) -> tuple[CatalogChanges, AdSet]:
    """The whole catalog of one version, and what an index holds of it."""
    changes = await Catalog(context.database).changes_since(0)
    return changes, await asyncio.to_thread(ad_set, changes.ads, context.schema)
