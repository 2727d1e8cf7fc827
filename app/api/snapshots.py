"""`/v1/snapshots`: manifests and verdicts, promotion and rollback."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.acknowledgement import swapped
from app.api.authentication import Actor, needs
from app.api.comparing import check_loads, comparison_view
from app.api.lifecycle_views import SnapshotList, SnapshotView
from app.api.lists import Cursor, Limit, after_uuid, page
from app.api.moments import moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import (
    ActRequest,
    CheckView,
    PromotedView,
    PromoteRequest,
    RollbackRequest,
    ServingView,
    VerdictView,
)
from app.api.services import Services, services_of
from app.storage import comparisons, snapshots
from app.storage.comparisons import Comparison, Role
from app.storage.engine import Database
from app.storage.snapshots import Serving, StoredSnapshot

router = APIRouter(prefix="/v1/snapshots", tags=["model"], dependencies=[Depends(needs("admin"))])
_decoder = msgspec.json.Decoder(PromoteRequest)
_rollback_decoder = msgspec.json.Decoder(RollbackRequest)
_act_decoder = msgspec.json.Decoder(ActRequest)


@router.get("", **operation(summary="List snapshots", scope="admin", answers={200: SnapshotList}))
async def list_(request: Request, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Snapshots, the newest first, with every check of their verdicts."""
    database = services_of(request).database
    after = after_uuid(cursor)
    found = await snapshots.list_snapshots(database, limit + 1, after)
    kept, following = page(await _views(database, found), limit)
    return body.answer(SnapshotList(items=list(kept), next_cursor=following))


@router.get(
    "/{snapshot_id:uuid}",
    **operation(
        summary="Read a snapshot", scope="admin", answers={200: SnapshotView}, faults=(404,)
    ),
)
async def get(request: Request, snapshot_id: UUID) -> Response:
    """One snapshot's manifest and verdict, and what its canaries and shadows measured."""
    database = services_of(request).database
    stored = await snapshots.get_snapshot(database, snapshot_id)
    [view] = await _views(database, [stored])
    return body.answer(view)


@router.post(
    "/{snapshot_id:uuid}/promote",
    **operation(
        summary="Serve a snapshot",
        scope="admin",
        body=PromoteRequest,
        body_required=False,
        answers={200: PromotedView, 202: PromotedView},
        faults=(404, 409),
        example={"pin": False, "reason": "the canary of yesterday"},
    ),
)
async def promote(request: Request, snapshot_id: UUID, actor: Actor) -> Response:
    """Serve this snapshot and train on from it. A refused or damaged one is never promoted.

    200 once every live worker serves it; 202 names those that do not yet.
    """
    services = services_of(request)
    given = await body.read(request, _decoder, services.settings.max_body_bytes, optional=True)
    stored = await snapshots.get_snapshot(services.database, snapshot_id)
    await check_loads(services, stored)
    now_ms = time.time_ns() // 1_000_000
    told = (actor, now_ms, given.pin, given.reason)
    serving = await snapshots.promote(services.database, snapshot_id, *told)
    return await _promoted(services, serving)


@router.post(
    "/rollback",
    **operation(
        summary="Serve what was served before",
        scope="admin",
        body=RollbackRequest,
        body_required=False,
        example={"reason": "clicks fell", "serving": "0192f0c1-2a3b-7c4d-8e5f-60718293a4b5"},
        answers={200: PromotedView, 202: PromotedView},
        faults=(409,),
    ),
)
async def rollback(request: Request, actor: Actor) -> Response:
    """Go back to the snapshot served before and pin it, or the next training would undo it.

    409 when `serving` is given and another one serves. 200 once every live worker serves it; 202
    names those that do not yet.
    """
    services = services_of(request)
    limit = services.settings.max_body_bytes
    given = await body.read(request, _rollback_decoder, limit, optional=True)
    told = (actor, time.time_ns() // 1_000_000, given.reason, given.serving)
    serving = await snapshots.rollback(services.database, *told)
    return await _promoted(services, serving)


@router.post(
    "/pin",
    **operation(
        summary="Keep what is served",
        scope="admin",
        body=ActRequest,
        body_required=False,
        example={"reason": "the weekend"},
        answers={200: ServingView},
        faults=(409,),
    ),
)
async def pin(request: Request, actor: Actor) -> Response:
    """Keep the present snapshot: neither training nor a canary's rule promotes another one."""
    database = services_of(request).database
    pinned = await snapshots.pin(database, actor, await _reason(request))
    return body.answer(_serving_view(pinned))


@router.post(
    "/unpin",
    **operation(
        summary="Let new snapshots serve again",
        scope="admin",
        body=ActRequest,
        body_required=False,
        example={"reason": "the weekend is over"},
        answers={200: ServingView},
        faults=(409,),
    ),
)
async def unpin(request: Request, actor: Actor) -> Response:
    """Take the pin off: the next accepted snapshot is served."""
    database = services_of(request).database
    unpinned = await snapshots.unpin(database, actor, await _reason(request))
    return body.answer(_serving_view(unpinned))


async def _reason(request: Request) -> str:
    limit = services_of(request).settings.max_body_bytes
    return (await body.read(request, _act_decoder, limit, optional=True)).reason


async def _views(database: Database, found: Sequence[StoredSnapshot]) -> list[SnapshotView]:
    serving, parts = await snapshots.serving(database), await comparisons.roles(database)
    compared = await comparisons.of_snapshots(database, [one.manifest.id for one in found])
    return [_view(stored, serving, parts, compared) for stored in found]


def _view(
    stored: StoredSnapshot,
    serving: Serving | None,
    parts: Mapping[Role, UUID],
    compared: Sequence[Comparison],
) -> SnapshotView:
    manifest = stored.manifest
    is_serving = serving is not None and serving.snapshot_id == manifest.id
    return SnapshotView(
        id=manifest.id,
        parent_id=manifest.parent,
        created_at=moment(manifest.created_ms),
        first_event_at=moment_or_none(manifest.first_event_ms),
        last_event_at=moment_or_none(manifest.last_event_ms),
        expired_at=moment_or_none(stored.expired_ms),
        is_serving=is_serving,
        is_pinned=is_serving and serving is not None and serving.is_pinned,
        roles=[role for role, snapshot_id in parts.items() if snapshot_id == manifest.id],
        schema_hash=manifest.schema_hash,
        verdict=VerdictView(
            result=manifest.verdict.result,
            reasons=list(manifest.verdict.reasons),
            checks=[
                CheckView(
                    name=check.name,
                    value=check.value,
                    limit=check.limit,
                    passed=check.passed,
                    reason=check.reason,
                )
                for check in manifest.verdict.checks
            ],
        ),
        metrics=dict(manifest.metrics),
        comparisons=[comparison_view(c) for c in compared if c.snapshot_id == manifest.id],
    )


async def _promoted(services: Services, serving: Serving) -> Response:
    held = await swapped(services, serving.snapshot_id)
    view = PromotedView(
        snapshot_id=serving.snapshot_id,
        head_id=serving.head_id,
        is_pinned=serving.is_pinned,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(view, held.status)


def _serving_view(serving: Serving) -> ServingView:
    return ServingView(
        snapshot_id=serving.snapshot_id, head_id=serving.head_id, is_pinned=serving.is_pinned
    )
