"""`GET /healthz` and `GET /readyz`: the only calls that need no key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from app.api import body
from app.api.schemas import Alive, Readiness
from app.api.services import CUT_OFF, services_of
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
        503: _described(Readiness, "No warm bundle yet, or cut off from the database for too long"),
    },
)
async def ready(request: Request) -> Response:
    """200 once a bundle is warm; `degraded` where the database or a newer snapshot is missing."""
    state = services_of(request).state
    readiness = _readiness(state)
    return body.answer(readiness, 200 if readiness.status in ("ready", "degraded") else 503)


def _readiness(state: WorkerState) -> Readiness:
    bundle, reasons = state.bundle, _reasons(state)
    status = "degraded" if reasons else "ready"
    if bundle is None:
        status = "starting"
    elif not state.lease.holds():
        status = "cut_off"
    return Readiness(
        status=status,  # type: ignore[arg-type]  # one of the literals above
        database="reachable" if state.database_reachable else "unreachable",
        snapshot_id=None if bundle is None else bundle.snapshot_id,
        catalog_version=None if bundle is None else bundle.live.version,
        reasons=reasons,
    )


def _reasons(state: WorkerState) -> list[str]:
    reasons = []
    if state.bundle is not None and not state.lease.holds():
        reasons.append(CUT_OFF)
    elif not state.database_reachable:
        reasons.append(
            "the database does not answer: decisions come from memory, events are refused"
        )
    if state.snapshot_fault is not None:
        # Anybody may ask: paths and addresses of the store are for the log.
        what = state.snapshot_fault.partition(": ")[0]
        reasons.append(f"{what}: it could not be loaded, the log says why")
    if state.canary_fault is not None:
        reasons.append(state.canary_fault)
    if state.bundle is None and not reasons:
        reasons.append("no snapshot is recorded yet: `adscent jobs` makes the first one")
    return reasons
