"""`/v1/quarantine`: what the rules against invalid traffic have set aside, and its release."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.authentication import Actor, needs
from app.api.moments import moment
from app.api.openapi import operation
from app.api.schemas import QuarantinedView, QuarantineList, ReleasedView, ReleaseRequest
from app.api.services import services_of
from app.storage import quarantine

router = APIRouter(
    prefix="/v1/quarantine", tags=["serving"], dependencies=[Depends(needs("admin"))]
)
_decoder = msgspec.json.Decoder(ReleaseRequest)


@router.get(
    "",
    **operation(summary="Count quarantined events", scope="admin", answers={200: QuarantineList}),
)
async def list_(request: Request) -> Response:
    """Counts by rule and type of the events that are kept but not learned."""
    found = await quarantine.counts(services_of(request).database)
    items = [
        QuarantinedView(
            rule=one.rule,
            type=one.type,
            events=one.events,
            first_at=moment(one.first_ms),
            last_at=moment(one.last_ms),
        )
        for one in found
    ]
    return body.answer(QuarantineList(items=items))


@router.post(
    "/release",
    **operation(
        summary="Release quarantined events",
        scope="admin",
        body=ReleaseRequest,
        answers={200: ReleasedView},
        example={"rule": "address", "ad_id": 42},
    ),
)
async def release(request: Request, actor: Actor) -> Response:
    """Let the events of one rule count; those that were never learned are in a later chunk."""
    services = services_of(request)
    given = await body.read(request, _decoder, services.settings.max_body_bytes)
    count = await quarantine.release(services.database, given.rule, actor, given.ad_id)
    return body.answer(ReleasedView(released=count))
