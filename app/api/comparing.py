"""`/v1/snapshots`: canaries, shadows, and which snapshot answered when."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from app.api import body
from app.api.acknowledgement import Acknowledgement, canaried
from app.api.authentication import Actor, needs
from app.api.lifecycle_views import (
    CanaryRequest,
    ComparisonChange,
    ComparisonView,
    HistoryList,
    JudgementView,
    PeriodView,
    RuleView,
    SideView,
)
from app.api.lists import Cursor, Limit, after_id, page
from app.api.moments import EARLIEST_MS, LATEST_MS, milliseconds, moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import ActRequest, CheckView, Moment
from app.api.services import Services, services_of
from app.errors import PromotionRefused
from app.storage import comparisons, serving_history, snapshots
from app.storage.comparisons import Comparison, Kind
from app.storage.serving_history import Period
from app.storage.snapshot_store import open_store
from app.storage.snapshots import StoredSnapshot
from models.comparison import Judgement, Side, difference, sides

router = APIRouter(prefix="/v1/snapshots", tags=["model"], dependencies=[Depends(needs("admin"))])
_canary_decoder = msgspec.json.Decoder(CanaryRequest)
_act_decoder = msgspec.json.Decoder(ActRequest)

Reason = Annotated[
    str, Query(max_length=500, pattern=r"^[^\x00]*$", description="Stands in the history")
]
From = Annotated[
    str | None, Query(alias="from", max_length=40, description="Periods that end after it")
]
To = Annotated[
    str | None, Query(alias="to", max_length=40, description="Periods that begin by then")
]


@router.get(
    "/history",
    **operation(summary="Which snapshot answered when", scope="admin", answers={200: HistoryList}),
)
async def history(
    request: Request,
    from_: From = None,
    to: To = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Promotions, rollbacks, pins, canaries and shadows, each with what answered from then on.

    Newest first, with who did it and why. Of one decision, its token and its events say it exactly.
    """
    found = await serving_history.between(
        services_of(request).database,
        _time("from", from_),
        _time("to", to),
        limit + 1,
        after_id(cursor),
    )
    kept, following = page(found, limit)
    return body.answer(HistoryList(items=[_period(one) for one in kept], next_cursor=following))


@router.post(
    "/{snapshot_id:uuid}/canary",
    **operation(
        summary="Let a snapshot answer a share",
        scope="admin",
        body=CanaryRequest,
        body_required=False,
        answers={200: ComparisonChange, 202: ComparisonChange},
        faults=(404, 409),
        example={"share": 0.1, "reason": "new category feature"},
    ),
)
async def start_canary(request: Request, snapshot_id: UUID, actor: Actor) -> Response:
    """Answer a share of decisions and scores with this snapshot, until the rule decides.

    The jobs process promotes it or rolls it back. 200 once every live worker answers with it.
    """
    services = services_of(request)
    limit = services.settings.max_body_bytes
    given = await body.read(request, _canary_decoder, limit, optional=True)
    return await _start(services, "canary", snapshot_id, actor, given.reason, given.share)


@router.post(
    "/{snapshot_id:uuid}/shadow",
    **operation(
        summary="Score live traffic without serving",
        scope="admin",
        body=ActRequest,
        body_required=False,
        answers={200: ComparisonChange},
        faults=(404, 409),
        example={"reason": "before its canary"},
    ),
)
async def start_shadow(request: Request, snapshot_id: UUID, actor: Actor) -> Response:
    """Measure this snapshot on what the incumbent answers; it answers nothing itself.

    The jobs process scores stored impressions with both, once they have matured.
    """
    services = services_of(request)
    limit = services.settings.max_body_bytes
    given = await body.read(request, _act_decoder, limit, optional=True)
    return await _start(services, "shadow", snapshot_id, actor, given.reason, None)


@router.delete(
    "/{snapshot_id:uuid}/canary",
    **operation(
        summary="End a canary",
        scope="admin",
        answers={200: ComparisonChange, 202: ComparisonChange},
        faults=(404, 409),
    ),
)
async def end_canary(
    request: Request, snapshot_id: UUID, actor: Actor, reason: Reason = ""
) -> Response:
    """The incumbent answers alone again; the head stays. 200 once it does on every live worker."""
    return await _end(services_of(request), "canary", snapshot_id, actor, reason)


@router.delete(
    "/{snapshot_id:uuid}/shadow",
    **operation(
        summary="End a shadow", scope="admin", answers={200: ComparisonChange}, faults=(404, 409)
    ),
)
async def end_shadow(
    request: Request, snapshot_id: UUID, actor: Actor, reason: Reason = ""
) -> Response:
    """Stop measuring it; what was measured stays readable."""
    return await _end(services_of(request), "shadow", snapshot_id, actor, reason)


async def check_loads(services: Services, stored: StoredSnapshot) -> None:
    """Find out before a snapshot answers, not in every worker after it."""
    manifest, schema = stored.manifest, services.encoder.schema
    if manifest.verdict.result == "refused" or stored.expired_ms is not None:
        return  # the change itself is refused, with the reason
    if manifest.schema_hash != schema.hash:
        raise PromotionRefused(
            f"snapshot {manifest.id} was trained under the feature schema {manifest.schema_hash},"
            f" this server has {schema.hash}; promote one of the present schema"
        )
    store = open_store(services.settings)
    await asyncio.to_thread(store.check_there, manifest)


async def _start(
    services: Services, kind: Kind, snapshot_id: UUID, actor: str, reason: str, share: float | None
) -> Response:
    await check_loads(services, await snapshots.get_snapshot(services.database, snapshot_id))
    plan = comparisons.plan_of(services.settings, share)
    given = (kind, snapshot_id, plan, actor, reason)
    made = await comparisons.start(services.database, *given)
    held = await canaried(services, made.id) if kind == "canary" else Acknowledgement([], [])
    return _changed(made, held)


async def _end(
    services: Services, kind: Kind, snapshot_id: UUID, actor: str, reason: str
) -> Response:
    ended = await comparisons.stop(services.database, kind, snapshot_id, actor, reason)
    held = await canaried(services, None) if kind == "canary" else Acknowledgement([], [])
    return _changed(ended, held)


def _changed(comparison: Comparison, held: Acknowledgement) -> Response:
    view = ComparisonChange(
        comparison=comparison_view(comparison),
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(view, held.status)


def comparison_view(one: Comparison) -> ComparisonView:
    """A comparison with the figures of both sides."""
    candidate, incumbent = sides(one.sums, shadow=one.kind == "shadow")
    mean, error = difference(one.sums)
    is_known = math.isfinite(mean) and math.isfinite(error)
    return ComparisonView(
        id=one.id,
        kind=one.kind,
        snapshot_id=one.snapshot_id,
        incumbent_id=one.incumbent_id,
        share=one.share,
        actor=one.actor,
        reason=one.reason,
        started_at=moment(one.started_ms),
        measured_until=moment(one.measured_ms),
        candidate=_side(candidate),
        incumbent=_side(incumbent),
        log_loss_difference=mean if is_known else None,
        log_loss_error=error if is_known else None,
        rule=RuleView(**msgspec.structs.asdict(one.rule)),
        judgement=None if one.judgement is None else _judgement(one.judgement),
        ended_at=moment_or_none(one.ended_ms),
        outcome=one.outcome,
        ended_by=one.ended_by,
        end_reason=one.end_reason,
    )


def _side(side: Side) -> SideView:
    return SideView(**msgspec.structs.asdict(side))


def _judgement(judgement: Judgement) -> JudgementView:
    return JudgementView(
        result=judgement.result,
        reasons=list(judgement.reasons),
        checks=[CheckView(**msgspec.structs.asdict(check)) for check in judgement.checks],
    )


def _period(period: Period) -> PeriodView:
    return PeriodView(
        id=period.id,
        from_at=moment(period.from_ms),
        until=moment_or_none(period.until_ms),
        action=period.action,
        subject_id=period.subject_id,
        snapshot_id=period.snapshot_id,
        is_pinned=period.is_pinned,
        canary_id=period.canary_id,
        share=period.share,
        actor=period.actor,
        reason=period.reason,
    )


def _time(name: str, given: str | None) -> int | None:
    if given is None:
        return None
    remedy = "Send a time with its offset from UTC, as 2026-11-22T10:00:00Z."
    try:
        found = milliseconds(msgspec.convert(given, Moment))
    except (msgspec.ValidationError, OverflowError) as error:
        raise body.refuse(f"query.{name}", given, "it is no time", remedy) from error
    if found is None or not EARLIEST_MS <= found <= LATEST_MS:
        raise body.refuse(f"query.{name}", given, "it is out of range", remedy)
    return found
