"""`POST /v1/decisions:explain`: why each ad of a decision won, and why others did not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.authentication import needs
from app.api.openapi import operation
from app.api.schemas import ExplainRequest
from app.api.services import answering, exploration_of, services_of
from app.ids import uuid7
from app.serving.explaining import Explanation, explain
from app.serving.pipeline import DecisionQuery

router = APIRouter(tags=["serving"], dependencies=[Depends(needs("admin"))])
_decoder = msgspec.json.Decoder(ExplainRequest)
_EXAMPLE = {"user": {"geo": "us", "hour": 20}, "slots": 3, "placement": "home", "ad_ids": [43]}


@router.post(
    "/v1/decisions:explain",
    **operation(
        summary="Explain a decision",
        scope="admin",
        body=ExplainRequest,
        answers={200: Explanation},
        example=_EXAMPLE,
    ),
)
async def explained(request: Request) -> Response:
    """Decide as `/v1/decisions` would now, and say why: for the page and for up to 50 other ads.

    Nothing is served and no token is made. Draws of exploration, and whether a canary answers, are
    those of `decision_id`, the latter those of `user_key` where there is one.
    """
    services = services_of(request)
    asked = await body.read(request, _decoder, services.settings.max_body_bytes)
    now_ms = time.time_ns() // 1_000_000
    decision_id = asked.decision_id or uuid7(now_ms)
    bundle, trials, _ = answering(services.state, asked.user_key, decision_id)
    limit = asked.per_advertiser or services.settings.per_advertiser
    query = DecisionQuery(
        asked.user, asked.slots, asked.placement, asked.exclude, asked.floor_micros, limit
    )
    exploration = exploration_of(services, bundle, trials)
    if exploration is not None:  # decisions go on counting while the thread reads
        exploration = replace(exploration, tried=dict(exploration.tried))
    found = await asyncio.to_thread(
        explain, bundle, query, asked.ad_ids, now_ms, decision_id, exploration
    )
    return body.answer(found)
