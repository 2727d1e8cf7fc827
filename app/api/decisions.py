"""`POST /v1/decisions`: the ads for the slots of one page, ranked and priced."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from app import metrics, request_ids
from app.api import body
from app.api.authentication import admit
from app.api.openapi import operation
from app.api.schemas import DecisionRequest
from app.api.services import answering, exploration_of
from app.errors import NotReady
from app.ids import uuid7
from app.serving import pipeline
from app.serving.state import WorkerState
from app.serving.tokens import Tokens

router = APIRouter(tags=["serving"])
_decoder = msgspec.json.Decoder(DecisionRequest)
_BY_CERTIFICATE = {
    role: {is_: metrics.DECISIONS.labels(str(is_).lower(), role) for is_ in (True, False)}
    for role in ("incumbent", "canary")
}
_EXAMPLE = {
    "user": {"geo": "us", "hour": 20},
    "slots": 3,
    "placement": "home",
    "exclude": [42],
    "floor_micros": 100_000,
    "per_advertiser": 1,
}


@router.post(
    "/v1/decisions",
    **operation(
        summary="Choose ads",
        scope="score",
        body=DecisionRequest,
        answers={200: pipeline.Decision},
        example=_EXAMPLE,
        has_deadline=True,
    ),
)
async def decide(request: Request) -> Response:
    """Rank the eligible ads by expected revenue; each carries the token of its events."""
    services = admit(request, "score")
    asked = await body.read(request, _decoder, services.settings.max_body_bytes)
    now_ms = time.time_ns() // 1_000_000
    decision_id, tokens = uuid7(now_ms), _tokens_of(services.state)
    bundle, trials, role = answering(services.state, asked.user_key, decision_id)
    limit = asked.per_advertiser or services.settings.per_advertiser
    query = pipeline.DecisionQuery(
        asked.user, asked.slots, asked.placement, asked.exclude, asked.floor_micros, limit
    )
    exploration = exploration_of(services, bundle, trials)
    decision = pipeline.decide(bundle, query, now_ms, decision_id, tokens, exploration)
    request_ids.note(decision.decision_id, decision.snapshot_id)
    services.state.recorded.append(query)
    _BY_CERTIFICATE[role][decision.certified].inc()
    metrics.DECIDED_ADS.inc(len(decision.ads))
    for ad in decision.ads:
        if ad.explored:
            trials.add(ad.ad_id)
            metrics.EXPLORED_ADS.inc()
    return body.answer(decision)


def _tokens_of(state: WorkerState) -> Tokens:
    if state.tokens is None:
        raise NotReady("the token keys are not loaded yet: the database has not answered so far")
    return state.tokens
