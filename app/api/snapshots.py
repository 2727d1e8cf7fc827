"""`/v1/snapshots`: manifests and verdicts, promotion and rollback."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.acknowledgement import swapped
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, Limit, after_uuid, page
from app.api.moments import moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import (
    CheckView,
    PromotedView,
    PromoteRequest,
    ServingView,
    SnapshotList,
    SnapshotView,
    VerdictView,
)
from app.api.services import Services, services_of
from app.errors import PromotionRefused
from app.storage import snapshots
from app.storage.snapshots import Serving, StoredSnapshot
from models import snapshot as snapshot_folder

router = APIRouter(prefix="/v1/snapshots", tags=["model"], dependencies=[Depends(needs("admin"))])
_decoder = msgspec.json.Decoder(PromoteRequest)


@router.get("", **operation(summary="List snapshots", scope="admin", answers={200: SnapshotList}))
async def list_(request: Request, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Snapshots, the newest first, with every check of their verdicts."""
    database = services_of(request).database
    after = after_uuid(cursor)
    found = await snapshots.list_snapshots(database, limit + 1, after)
    serving = await snapshots.serving(database)
    kept, following = page([_view(stored, serving) for stored in found], limit)
    return body.answer(SnapshotList(items=list(kept), next_cursor=following))


@router.get(
    "/{snapshot_id:uuid}",
    **operation(
        summary="Read a snapshot", scope="admin", answers={200: SnapshotView}, faults=(404,)
    ),
)
async def get(request: Request, snapshot_id: UUID) -> Response:
    """One snapshot's manifest and verdict."""
    database = services_of(request).database
    stored = await snapshots.get_snapshot(database, snapshot_id)
    return body.answer(_view(stored, await snapshots.serving(database)))


@router.post(
    "/{snapshot_id:uuid}/promote",
    **operation(
        summary="Serve a snapshot",
        scope="admin",
        body=PromoteRequest,
        body_required=False,
        answers={200: PromotedView, 202: PromotedView},
        faults=(404, 409),
        example={"pin": False},
    ),
)
async def promote(request: Request, snapshot_id: UUID, actor: Actor) -> Response:
    """Serve this snapshot and train on from it. A refused or damaged one is never promoted.

    200 once every live worker serves it; 202 names those that do not yet.
    """
    services = services_of(request)
    given = await body.read(request, _decoder, services.settings.max_body_bytes, optional=True)
    stored = await snapshots.get_snapshot(services.database, snapshot_id)
    if stored.manifest.verdict.result != "refused" and stored.expired_ms is None:
        await _check_loads(services, stored)
    now_ms = time.time_ns() // 1_000_000
    serving = await snapshots.promote(services.database, snapshot_id, actor, now_ms, given.pin)
    return await _promoted(services, serving)


@router.post(
    "/rollback",
    **operation(
        summary="Serve what was served before",
        scope="admin",
        answers={200: PromotedView, 202: PromotedView},
        faults=(409,),
    ),
)
async def rollback(request: Request, actor: Actor) -> Response:
    """Go back to the snapshot served before and pin it, or the next training would undo it.

    200 once every live worker serves it; 202 names those that do not yet.
    """
    services = services_of(request)
    serving = await snapshots.rollback(services.database, actor, time.time_ns() // 1_000_000)
    return await _promoted(services, serving)


@router.post(
    "/unpin",
    **operation(
        summary="Let new snapshots serve again",
        scope="admin",
        answers={200: ServingView},
        faults=(409,),
    ),
)
async def unpin(request: Request, actor: Actor) -> Response:
    """Take the pin off: the next accepted snapshot is served."""
    database = services_of(request).database
    return body.answer(_serving_view(await snapshots.unpin(database, actor)))


async def _check_loads(services: Services, stored: StoredSnapshot) -> None:
    """Find out before promoting, not in every worker after it."""
    manifest, schema = stored.manifest, services.encoder.schema
    if manifest.schema_hash != schema.hash:
        raise PromotionRefused(
            f"snapshot {manifest.id} was trained under the feature schema {manifest.schema_hash},"
            f" this server has {schema.hash}; promote one of the present schema"
        )
    folder = services.settings.snapshot_store / str(manifest.id)
    await asyncio.to_thread(snapshot_folder.verify, folder, manifest)


def _view(stored: StoredSnapshot, serving: Serving | None) -> SnapshotView:
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
