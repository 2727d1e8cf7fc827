"""`/v1/retrains`: train now, and the history of training runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, Limit, after_uuid, page
from app.api.moments import moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import RetrainRequest, RunList, RunView
from app.api.services import services_of
from app.storage import job_runs
from app.storage.job_runs import Run
from models.constraints import Radii
from models.schema import Schema

router = APIRouter(prefix="/v1/retrains", tags=["model"], dependencies=[Depends(needs("admin"))])
_decoder = msgspec.json.Decoder(RetrainRequest)


@router.post(
    "",
    **operation(
        summary="Train now",
        scope="admin",
        body=RetrainRequest,
        body_required=False,
        answers={202: RunView},
        example={"step_size": 1.0},
    ),
)
async def request_(request: Request, actor: Actor) -> Response:
    """Ask the jobs process for a run; the gate judges its snapshot like any other."""
    services = services_of(request)
    given = await body.read(request, _decoder, services.settings.max_body_bytes, optional=True)
    overrides = msgspec.to_builtins(given)
    if "user_radius" in overrides or "ad_radius" in overrides:
        _check_radii(overrides, await asyncio.to_thread(_radii, services.encoder.schema))
    now_ms = time.time_ns() // 1_000_000
    run = await job_runs.request_retrain(services.database, overrides, actor, now_ms)
    return body.answer(_view(run), 202)


@router.get("", **operation(summary="List runs", scope="admin", answers={200: RunList}))
async def list_(request: Request, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Training runs, the newest first."""
    after = after_uuid(cursor)
    found = await job_runs.list_runs(services_of(request).database, limit + 1, after)
    kept, following = page(found, limit)
    return body.answer(RunList(items=[_view(run) for run in kept], next_cursor=following))


@router.get(
    "/{run_id:uuid}",
    **operation(summary="Read a run", scope="admin", answers={200: RunView}, faults=(404,)),
)
async def get(request: Request, run_id: UUID) -> Response:
    """One training run."""
    return body.answer(_view(await job_runs.get_run(services_of(request).database, run_id)))


def _radii(schema: Schema) -> Radii:
    """The deployment's radii. For a thread: it imports the trainer, which loads a compiler."""
    from models.trainer import TrainerSettings

    return TrainerSettings.of(schema).radii


def _check_radii(overrides: Mapping[str, float], radii: Radii) -> None:
    """A wider radius would let a model serve that the deployment's constraints forbid."""
    for name, limit in (("user_radius", radii.user), ("ad_radius", radii.ad)):
        if overrides.get(name, 0.0) > limit:
            remedy = "Lower it, or change the feature schema file to widen it."
            raise body.refuse(name, overrides[name], f"at most {limit:g}: only tighter", remedy)


def _view(run: Run) -> RunView:
    overrides: Mapping[str, Any] = run.overrides
    return RunView(
        id=run.id,
        state=run.state,
        actor=run.actor,
        overrides=dict(overrides),
        snapshot_id=run.snapshot_id,
        events=run.events,
        reasons=list(run.reasons),
        requested_at=moment(run.requested_ms),
        started_at=moment_or_none(run.started_ms),
        finished_at=moment_or_none(run.finished_ms),
    )
