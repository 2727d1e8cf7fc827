"""Canaries and shadows: measured on what was answered, and judged.

Both snapshots score every impression from the features in its event, which are those of its token:
exactly what was or would have been predicted, with nothing to do on the path of a request. An
impression is measured once its attribution window is over, when it has the label that it will be
learned with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

import numpy as np

from app.storage import answered, comparisons, erasures, snapshots
from app.storage.answered import Answered
from app.storage.comparisons import Comparison, Slice
from app.storage.errors import NotFound, StoreUnavailable
from jobs.context import Context
from models import snapshot
from models.comparison import Arm, Sums, added, arm_of, judge
from models.erasure import Erased
from models.errors import ModelError, SnapshotCorrupt
from models.features import unpack
from models.offset import Model, sigmoid
from models.schema import Schema
from models.scoring import chunk_scores
from models.trainer import TrainerSettings
from models.types import Batch, Bools, Float64s

ACTOR = "canary rule"
_Models = dict[UUID, Model | None]


async def compare(context: Context) -> None:
    """Measure what has matured since the last time; promote or roll back a canary by its rule.

    One that cannot be measured is judged by what is known of it, so it ends in time all the same;
    the error is raised afterwards.
    """
    known: _Models = {}
    failure: Exception | None = None
    for comparison in await comparisons.running(context.database):
        try:
            measured = await _measured(context, comparison, known)
        except (ModelError, StoreUnavailable) as error:
            failure = error
            now_ms = await comparisons.now_ms(context.database)
            measured = _judged(comparison, _nothing(comparison), now_ms)
        if measured.kind == "canary":
            await _act(context, measured)
    await tell(context)
    if failure is not None:
        raise failure


async def tell(context: Context) -> None:
    """Tell Prometheus which snapshot plays which part, and what the comparisons say."""
    running = await comparisons.running(context.database)
    context.measures.comparisons.show(await comparisons.roles(context.database), running)


async def _measured(context: Context, comparison: Comparison, known: _Models) -> Comparison:
    """The comparison with everything that has matured."""
    now_ms = await comparisons.now_ms(context.database)
    until_ms = now_ms - int(1000 * context.settings.attribution_window_s)
    erased = await erasures.read(context.database)
    while comparison.measured_ms < until_ms:
        found = await answered.read(context.database, comparison.measured_ms, until_ms)
        await _load(context, comparison, found, known)
        given = (context.schema, comparison, found, known, erased)
        sums = await asyncio.to_thread(_sums, *given)
        measured = Slice(found.from_ms, found.to_ms, sums)
        comparison = _judged(comparison, measured, now_ms)
        assert comparison.judgement is not None  # noqa: S101  # `_judged` has just made it
        added_to = (comparison.id, measured, comparison.judgement)
        if not await comparisons.add_slice(context.database, *added_to):
            break  # ended meanwhile, or another leader was faster
    return _judged(comparison, _nothing(comparison), now_ms)


def _nothing(comparison: Comparison) -> Slice:
    return Slice(comparison.measured_ms, comparison.measured_ms, Sums())


def _judged(comparison: Comparison, measured: Slice, now_ms: int) -> Comparison:
    sums, age_s = added([comparison.sums, measured.sums]), (now_ms - comparison.started_ms) / 1000
    judgement = judge(sums, comparison.rule, age_s, shadow=comparison.kind == "shadow")
    return replace(comparison, sums=sums, judgement=judgement, measured_ms=measured.to_ms)


async def _act(context: Context, canary: Comparison) -> None:
    judgement = canary.judgement
    if judgement is None or judgement.result == "wait":
        return
    given = (canary.id, judgement, ACTOR, context.clock())
    ended = await comparisons.conclude(context.database, *given)
    if ended is not None and ended.outcome is not None:
        context.measures.comparisons.ended.labels(outcome=ended.outcome).inc()
        context.log.info(
            "canary_ended",
            snapshot_id=str(ended.snapshot_id),
            outcome=ended.outcome,
            reasons=list(judgement.reasons),
        )


async def _load(context: Context, comparison: Comparison, found: Answered, known: _Models) -> None:
    """Map the models that scoring needs; None for one that is gone, whose answers are left out."""
    wanted = {comparison.snapshot_id, comparison.incumbent_id}
    if comparison.kind == "shadow":
        wanted |= set(found.snapshot_ids)
    for snapshot_id in wanted - known.keys():
        known[snapshot_id] = await _model(context, snapshot_id)


async def _model(context: Context, snapshot_id: UUID) -> Model | None:
    try:
        stored = await snapshots.get_snapshot(context.database, snapshot_id)
    except NotFound:
        return None
    recorded = stored.manifest
    if stored.expired_ms is not None or recorded.schema_hash != context.schema.hash:
        return None
    try:
        folder = await asyncio.to_thread(context.snapshots.fetch, recorded, snapshot.MODEL_FILES)
        return await asyncio.to_thread(snapshot.load_model, folder, recorded)
    except SnapshotCorrupt as error:
        context.log.warning("comparison_model_missing", error=str(error))
        return None


def _sums(
    schema: Schema, comparison: Comparison, found: Answered, known: _Models, erased: Erased
) -> Sums:
    """What one slice adds to either side."""
    candidate = known[comparison.snapshot_id]
    if candidate is None or not len(found):
        return Sums()
    user, ad = unpack(schema, found.features)
    batch = Batch(found.time_ms, found.ad_id, found.label, erased.rows(user), ad)
    ours = _predicted(candidate, batch, schema)
    is_own = np.array([one == comparison.snapshot_id for one in found.snapshot_ids])[found.by]
    if comparison.kind == "shadow":
        theirs = _as_served(found, batch, schema, known)
        return Sums(incumbent=_arm(found, ours, theirs, ~is_own & np.isfinite(theirs)))
    incumbent = known[comparison.incumbent_id]
    if incumbent is None:
        return Sums()
    theirs = _predicted(incumbent, batch, schema)
    is_theirs = np.array([one == comparison.incumbent_id for one in found.snapshot_ids])[found.by]
    return Sums(_arm(found, ours, theirs, is_own), _arm(found, ours, theirs, is_theirs))


def _as_served(
    found: Answered, batch: Batch, schema: Schema, known: Mapping[UUID, Model | None]
) -> Float64s:
    """The pCTR by the snapshot that answered each: float64 [n], NaN for one that is gone."""
    scores = np.full(len(found), np.nan)
    for number, snapshot_id in enumerate(found.snapshot_ids):
        model, rows = known[snapshot_id], np.flatnonzero(found.by == number)
        if model is not None:
            some = Batch(
                *(batch.time_ms[rows], batch.ad_id[rows], batch.label[rows]),
                *(batch.user.take(rows), batch.ad.take(rows)),
            )
            scores[rows] = _predicted(model, some, schema)
    return scores


def _predicted(model: Model, batch: Batch, schema: Schema) -> Float64s:
    return sigmoid(chunk_scores(model, batch, TrainerSettings.of(schema)))


def _arm(found: Answered, ours: Float64s, theirs: Float64s, rows: Bools) -> Arm:
    return arm_of(found.label[rows], ours[rows], theirs[rows], found.spend[rows])
