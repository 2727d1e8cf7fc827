"""One training cycle: incumbent and chunk in, judged candidate out. Jobs and replay share it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from uuid import UUID

import msgspec
import numpy as np

from models.gate import Evidence, extend_window, judge, total, window_chunk
from models.health import vector_health
from models.index import AdSet
from models.metrics import losses
from models.offset import Model, State, Table, genesis, sigmoid
from models.publish import Published, promise, publish, raw_model
from models.schema import Schema
from models.scoring import chunk_scores
from models.snapshot import Manifest, Snapshot, Verdict, WindowChunk
from models.trainer import TrainerSettings, train
from models.types import Batch, Float32s, Float64s, Int64s, empty_batch, join_batches
from models.vocabulary import EVERYTHING, Living, count_collected, living

PROBES = 256
"""Impressions whose scores are compared between incumbent and candidate."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """All that one cycle reads; nothing here is changed.

    `late`: impressions of earlier chunks that were clicked only now;
    `predicted`: float64 [n], the incumbent's pCTR of each event of the chunk, before learning;
    `living`: the rows of the incumbent's state that are not collected; `threads` learn the chunk.
    """

    incumbent: Snapshot
    chunk: Batch
    late: Batch
    predicted: Float64s
    ads: AdSet
    schema: Schema
    now_ms: int
    living: Living
    threads: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cycle made: its last candidate, which may serve unless its verdict is `refused`.

    `attempts`: the manifests of every candidate tried, in order, the last one's included; a refused
    one that was tried again has given its memory to the next. `predicted`: float64 [n], the
    incumbent's pCTR of each event of the chunk, before learning.
    """

    candidate: Snapshot
    attempts: tuple[Manifest, ...]
    predicted: Float64s


def genesis_snapshot(schema: Schema, ads: AdSet, *, snapshot_id: UUID, now_ms: int) -> Snapshot:
    """The snapshot that a deployment starts from: no features, one click rate for every ad."""
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    published = publish(state, ads, schema, TrainerSettings.of(schema).radii)
    probes = empty_batch(len(schema.user), len(schema.ad))
    evidence = _evidence(published, state, None, probes, schema, (), 0.0)
    verdict = judge(evidence, schema.gate)
    manifest = _manifest(state, schema, verdict, published, (), snapshot_id, None, now_ms)
    return Snapshot(manifest, state, published.model, published.index, probes)


def learn(
    incumbent: Snapshot,
    chunk: Batch,
    ads: AdSet,
    schema: Schema,
    settings: TrainerSettings,
    *,
    snapshot_ids: tuple[UUID, UUID],
    now_ms: int,
    late: Batch | None = None,
    retries: bool = True,
    threads: int = 1,
) -> Outcome:
    """Train the chunk, publish, judge; on a refusal try once more from the incumbent by projection.

    Values unseen for too long when the chunk begins are collected first; `ads` are all that are not
    retired. The retry carries the refused candidate's duals, which play no part in projection: they
    hold the vectors that broke out harder in the chunks after it. `snapshot_ids` name the first
    candidate and its retry. More than one of `threads` are faster, but not reproducible (see
    `trainer.train`). Nothing given is changed.

    `late` are impressions that an earlier chunk learned as not clicked and whose click came since:
    they are learned once more, as clicked, before the chunk. Two gradients, p and p − 1, stand then
    for the right one, p − 1: near it while pCTRs are small, and never beyond it. What the gate
    counts is the chunk alone and those clicks, whose impressions it has counted before.
    """
    predicted = sigmoid(chunk_scores(incumbent.model, chunk, settings))
    stay = _living(incumbent.state, chunk, ads, schema, now_ms)
    if late is None:
        late = empty_batch(len(schema.user), len(schema.ad))
    cycle = Cycle(incumbent, chunk, late, predicted, ads, schema, now_ms, stay, threads)
    candidate = _attempt(cycle, incumbent.state, settings, snapshot_ids[0])
    attempts: tuple[Manifest, ...] = (candidate.manifest,)
    if candidate.manifest.verdict.result == "refused" and retries:
        start = with_duals(incumbent.state, candidate.state, stay)
        del candidate  # its arrays may take a third of the memory
        projecting = replace(settings, constraint="projection")
        candidate = _attempt(cycle, start, projecting, snapshot_ids[1])
        attempts += (candidate.manifest,)
    return Outcome(candidate, attempts, predicted)


def _living(state: State, chunk: Batch, ads: AdSet, schema: Schema, now_ms: int) -> Living:
    """What stays when the chunk begins, so that a late or repeated run collects the same.

    Age counts up to the last event learned: a value that comes back within its TTL is still there,
    and while nothing is learned nothing ages, however long that takes. `now_ms` bounds it, should
    an event have come from the future.
    """
    if not len(chunk):
        return EVERYTHING
    learned_ms = max(int(table.touched_ms.max(initial=0)) for table in (state.user, state.ad))
    begins_ms = min(int(chunk.time_ms.min()), learned_ms, now_ms)
    return living(state, ads.features, now_ms=begins_ms, ttl_days=schema.model.value_ttl_days)


def with_duals(state: State, other: State, rows: Living = EVERYTHING) -> State:
    """`state` with the duals of `other`, a state trained from those rows of it."""
    user = _with_duals(state.user, other.user, rows.user)
    return replace(state, user=user, ad=_with_duals(state.ad, other.ad, rows.ad))


def _with_duals(table: Table, other: Table, rows: Int64s | None) -> Table:
    # The trainer appends new values, so the rows of the start are the first rows of the result.
    dual = np.array(table.dual)
    if rows is None:
        dual[:] = other.dual[: len(table)]
    else:
        dual[rows] = other.dual[: len(rows)]
    return replace(table, dual=dual)


def is_finite(state: State) -> bool:
    """Whether every parameter of the raw state is a finite number."""
    arrays = [state.user.latent, state.user.main, state.ad.latent, state.ad.main]
    # Minimum and maximum of an array with a NaN are NaN, and take no array of their own.
    ends = [end for array in arrays if array.size for end in (array.min(), array.max())]
    return math.isfinite(state.bias) and bool(np.isfinite(ends).all())


def _attempt(cycle: Cycle, start: State, settings: TrainerSettings, snapshot_id: UUID) -> Snapshot:
    incumbent, chunk, schema = cycle.incumbent, cycle.chunk, cycle.schema
    # A diverging step overflows to infinity: the check on finite parameters is what reports it.
    with np.errstate(over="ignore", invalid="ignore"):
        events = join_batches(cycle.late, chunk) if len(cycle.late) else chunk
        trained = train(start, events, schema, settings, living=cycle.living, threads=cycle.threads)
        published = publish(trained.state, cycle.ads, schema, settings.radii)
        window = _window(cycle, trained.predicted[len(cycle.late) :])
        probes = _probes(incumbent.probes, chunk)
        moved = _publishing_moved(published, trained.state, cycle, settings)
        evidence = _evidence(
            published, trained.state, _learned_model(incumbent), probes, schema, window, moved
        )
        verdict = judge(evidence, schema.gate)
    manifest = _manifest(
        trained.state,
        schema,
        verdict,
        published,
        window,
        snapshot_id,
        incumbent.manifest.id,
        cycle.now_ms,
    )
    manifest = _with_times(_with_collected(manifest, cycle), chunk)
    health = vector_health(trained.state, schema, settings.radii)
    manifest = msgspec.structs.replace(manifest, vectors=health)
    return Snapshot(manifest, trained.state, published.model, published.index, probes)


def _learned_model(snapshot: Snapshot) -> Model | None:
    """The model, unless it is that of the genesis: moving away from a guess is no drift."""
    return None if snapshot.manifest.parent is None else snapshot.model


def _window(cycle: Cycle, predicted: Float32s) -> tuple[WindowChunk, ...]:
    before, chunk = cycle.incumbent.manifest.window, cycle.chunk
    if not len(chunk):
        return before
    sums = total(before)
    rate = (sums.clicks + cycle.schema.model.base_rate) / (sums.events + 1)
    added = window_chunk(chunk.label, predicted, cycle.predicted, rate)
    # Their impressions were counted, with what was predicted for them, in earlier chunks.
    added = msgspec.structs.replace(added, clicks=added.clicks + len(cycle.late))
    return extend_window(before, added, cycle.schema.gate)


def _probes(probes: Batch, chunk: Batch) -> Batch:
    """The incumbent's probes, filled up from the chunk, evenly spread, until there are enough."""
    wanted = min(PROBES - len(probes), len(chunk))
    filled = probes
    for row in np.linspace(0, len(chunk) - 1, max(wanted, 0)).astype(int):
        filled = join_batches(filled, chunk.rows(int(row), int(row) + 1))
    return filled


def _publishing_moved(
    published: Published, state: State, cycle: Cycle, settings: TrainerSettings
) -> float:
    """Log loss on the chunk of the published minus that of the raw model, 0 if they are one.

    A repair may cost what the promise asks for, as long as it leaves the incumbent behind.
    """
    chunk = cycle.chunk
    if not len(chunk) or not (published.projection.count or published.shrink < 1):
        return 0.0
    raw = raw_model(state, cycle.schema, since_ms=int(chunk.time_ms.min()))
    after, before = (
        float(losses(sigmoid(chunk_scores(model, chunk, settings)), chunk.label).mean())
        for model in (published.model, raw)
    )
    if published.shrink < 1:
        before = max(before, float(losses(cycle.predicted, chunk.label).mean()))
    return after - before


def _evidence(
    published: Published,
    state: State,
    incumbent: Model | None,
    probes: Batch,
    schema: Schema,
    window: tuple[WindowChunk, ...],
    moved: float,
) -> Evidence:
    low, high = promise(schema)
    return Evidence(
        finite=is_finite(state),
        largest_ratio=published.projection.largest_ratio,
        largest_published_ratio=published.largest_ratio,
        score_low=published.reach.low,
        score_high=published.reach.high,
        promise_low=low,
        promise_high=high,
        shrink=published.shrink,
        publishing_moved=moved,
        probe_scores=published.model.score(probes.user, probes.ad),
        incumbent_probe_scores=None
        if incumbent is None
        else incumbent.score(probes.user, probes.ad),
        index_error=published.index_error,
        window=window,
    )


def _manifest(
    state: State,
    schema: Schema,
    verdict: Verdict,
    published: Published,
    window: tuple[WindowChunk, ...],
    snapshot_id: UUID,
    parent: UUID | None,
    now_ms: int,
) -> Manifest:
    return Manifest(
        id=snapshot_id,
        parent=parent,
        created_ms=now_ms,
        schema_hash=schema.hash,
        bias=_finite_or_none(state.bias),
        bias_precision=_finite_or_none(state.bias_precision),
        interaction_weight=state.interactions.weight,
        interaction_precision=state.interactions.precision,
        seed=state.seed,
        user_features=len(schema.user),
        overlap=schema.model.overlap,
        alone=schema.model.alone,
        verdict=verdict,
        metrics=_metrics(state, published, window),
        # A refused candidate is no part of the line, and its sums may not be finite.
        window=() if verdict.result == "refused" else window,
    )


def _metrics(
    state: State, published: Published, window: tuple[WindowChunk, ...]
) -> dict[str, float | None]:
    last = window[-1] if window else total(())
    events = max(last.events, 1)
    measured = {
        "events": last.events,
        "clicks": last.clicks,
        "log_loss": last.loss / events,
        "log_loss_incumbent": last.loss_incumbent / events,
        "log_loss_rate": last.loss_rate / events,
        "calibration": last.predicted / last.clicks if last.clicks else None,
        "largest_raw_ratio": published.projection.largest_ratio,
        "largest_ratio": published.largest_ratio,
        "projected": published.projection.count,
        "score_low": published.reach.low,
        "score_high": published.reach.high,
        "shrink": published.shrink,
        "user_values": len(state.user),
        "ad_values": len(state.ad),
        "largest_dual": max(_largest_dual(state.user), _largest_dual(state.ad)),
        "indexed_ads": len(published.index.ad_ids),
    }
    return {name: _finite_or_none(value) for name, value in measured.items()}


def _finite_or_none(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _largest_dual(table: Table) -> float:
    return float(table.dual.max()) if len(table) else 0.0


def _with_collected(manifest: Manifest, cycle: Cycle) -> Manifest:
    user, ad = count_collected(cycle.incumbent.state, cycle.living)
    counts = {"collected_user_values": float(user), "collected_ad_values": float(ad)}
    return msgspec.structs.replace(manifest, metrics=manifest.metrics | counts)


def _with_times(manifest: Manifest, chunk: Batch) -> Manifest:
    if not len(chunk):
        return manifest
    first, last = int(chunk.time_ms.min()), int(chunk.time_ms.max())
    return msgspec.structs.replace(manifest, first_event_ms=first, last_event_ms=last)
