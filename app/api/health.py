"""`GET /healthz` and `GET /readyz`: the only calls that need no key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api import body
from app.api.schemas import Alive, Readiness
from app.api.services import services_of
from app.serving.state import WorkerState

router = APIRouter(tags=["health"])


def _described(kind: type, text: str) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


@router.get("/healthz", summary="Alive", responses={200: _described(Alive, "The process runs")})
async def alive() -> Response:
    """Answers as long as the process runs."""
    return body.answer(Alive())


@router.get(
    "/readyz",
    summary="Ready",
    responses={
        200: _described(Readiness, "This worker decides, if need be from memory alone"),
        503: _described(Readiness, "This worker has no warm bundle yet"),
    },
)
async def ready(request: Request) -> Response:
    """200 once a bundle is warm; `degraded` where the database or a newer snapshot is missing."""
    state = services_of(request).state
    return body.answer(_readiness(state), 200 if state.bundle is not None else 503)


def _readiness(state: WorkerState) -> Readiness:
    bundle, reasons = state.bundle, _reasons(state)
    status = "starting" if bundle is None else "degraded" if reasons else "ready"
    return Readiness(
        status=status,  # type: ignore[arg-type]  # one of the three literals above
        database="reachable" if state.database_reachable else "unreachable",
        snapshot_id=None if bundle is None else bundle.snapshot_id,
        catalog_version=None if bundle is None else bundle.live.version,
        reasons=reasons,
    )


def _reasons(state: WorkerState) -> list[str]:
    reasons = []
    if not state.database_reachable:
        reasons.append(
            "the database does not answer: decisions come from memory, events are refused"
        )
    if state.snapshot_fault is not None:
        reasons.append(state.snapshot_fault)
    if state.bundle is None and not reasons:
        reasons.append("no snapshot is recorded yet: `adscent jobs` makes the first one")
    return reasons
