"""`POST /v1/events`: impressions, clicks and conversions, each proven by its token."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from fastapi import APIRouter, Request, Response

from app import metrics
from app.api import body
from app.api.authentication import admit
from app.api.openapi import operation
from app.api.schemas import EventBody, EventsAnswer, EventsRequest, RejectedEvent
from app.errors import NotReady
from app.serving.tokens import TokenInvalid, Tokens
from models.types import Event

router = APIRouter(tags=["serving"])
_decoder = msgspec.json.Decoder(EventsRequest)
_EXAMPLE = {
    "events": [{"type": "impression", "token": "AQEb…"}, {"type": "click", "token": "AQEb…"}]
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
    if services.state.tokens is None:
        raise NotReady("the token keys are not loaded yet: the database has not answered so far")
    indexes, events, rejected = _opened(
        asked.events, services.state.tokens, time.time_ns() // 1_000_000
    )
    outcomes = await services.events.write(events) if events else []
    late = [index for index, outcome in zip(indexes, outcomes, strict=True) if outcome == "too_old"]
    rejected += [RejectedEvent(index=index, reason="too_old") for index in late]
    _count(events, outcomes, rejected)
    return body.answer(
        EventsAnswer(
            accepted=outcomes.count("accepted"),
            duplicate=outcomes.count("duplicate"),
            rejected=sorted(rejected, key=lambda item: item.index),
        )
    )


def _opened(
    given: Sequence[EventBody], tokens: Tokens, now_ms: int
) -> tuple[list[int], list[Event], list[RejectedEvent]]:
    indexes: list[int] = []
    events: list[Event] = []
    rejected: list[RejectedEvent] = []
    for index, item in enumerate(given):
        try:
            content = tokens.open(item.token, now_ms)
        except TokenInvalid as error:
            rejected.append(RejectedEvent(index=index, reason=error.reason))
            metrics.TOKENS_REFUSED.labels(error.reason).inc()
            continue
        indexes.append(index)
        events.append(content.event(item.type))
    return indexes, events, rejected


def _count(
    events: Sequence[Event], outcomes: Sequence[str], rejected: Sequence[RejectedEvent]
) -> None:
    for event, outcome in zip(events, outcomes, strict=True):
        metrics.EVENTS.labels(event.type, outcome).inc()
    forged = sum(item.reason != "too_old" for item in rejected)
    if forged:
        metrics.EVENTS.labels("unknown", "rejected").inc(forged)
