"""`POST /v1/score`: pCTR, bid and eCPM of given ads for one user."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from app import metrics
from app.api import body
from app.api.authentication import admit
from app.api.openapi import operation
from app.api.schemas import ScoreAnswer, ScoreRequest
from app.api.services import bundle_of
from app.serving import pipeline

router = APIRouter(tags=["serving"])
_decoder = msgspec.json.Decoder(ScoreRequest)
_EXAMPLE = {"user": {"geo": "us", "hour": 20}, "ad_ids": [42, 43]}


@router.post(
    "/v1/score",
    **operation(
        summary="Score ads for one user",
        scope="score",
        body=ScoreRequest,
        answers={200: ScoreAnswer},
        example=_EXAMPLE,
    ),
)
async def score(request: Request) -> Response:
    """Score up to 1,000 ads; an unknown ad is reported in its line."""
    services = admit(request, "score")
    asked = await body.read(request, _decoder, services.settings.max_body_bytes)
    bundle = bundle_of(services.state)
    query = pipeline.ScoreQuery(asked.user, asked.ad_ids)
    scored = pipeline.score(bundle, query, time.time_ns() // 1_000_000)
    metrics.SCORED_ADS.inc(len(scored))
    return body.answer(
        ScoreAnswer(
            snapshot_id=bundle.snapshot_id,
            catalog_version=bundle.live.version,
            ads=scored,
        )
    )
