"""`POST /v1/events`: impressions, clicks, conversions and closes, each proven by its token."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from app.api import body, intake
from app.api.authentication import admit
from app.api.openapi import operation
from app.api.schemas import EventsAnswer, EventsRequest

router = APIRouter(tags=["serving"])
_decoder = msgspec.json.Decoder(EventsRequest)
_EXAMPLE = {
    "events": [
        {"type": "impression", "token": "AQEb…"},
        {"type": "click", "token": "AQEb…"},
        {"type": "conversion", "token": "AQEb…", "value_micros": 25_000_000},
    ]
}


@router.post(
    "/v1/events",
    **operation(
        summary="Store events",
        scope="ingest",
        body=EventsRequest,
        answers={200: EventsAnswer},
        example=_EXAMPLE,
    ),
)
async def store(request: Request) -> Response:
    """Answer once the events are durable; a repeated event counts as a duplicate."""
    services = admit(request, "ingest")
    asked = await body.read(request, _decoder, services.settings.max_body_bytes)
    return body.answer(await intake.store(services, asked.events, time.time_ns() // 1_000_000))
