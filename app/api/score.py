"""`POST /v1/score` and `/v1/score:batch`: figures of given ads for one user, for many users."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from app import metrics, request_ids
from app.api import body
from app.api.authentication import admit
from app.api.openapi import operation
from app.api.schemas import BatchAnswer, BatchRequest, ScoreAnswer, ScoreRequest
from app.api.services import answering
from app.serving import scoring

router = APIRouter(tags=["serving"])
_decoder = msgspec.json.Decoder(ScoreRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_BY_ROLE = {role: metrics.SCORED_ADS.labels(role) for role in ("incumbent", "canary")}
_MOST_PAIRS = 10_000
"""Most pairs of a user and an ad in one batch: they keep a worker busy for some 10 ms."""
_EXAMPLE = {"user": {"geo": "us", "hour": 20}, "ad_ids": [42, 43]}
_BATCH_EXAMPLE = {
    "users": [{"user": {"geo": "us", "hour": 20}}, {"user": {"geo": "ca"}, "ad_ids": [42]}],
    "ad_ids": [42, 43],
}


@router.post(
    "/v1/score",
    **operation(
        summary="Score ads for one user",
        scope="score",
        body=ScoreRequest,
        answers={200: ScoreAnswer},
        example=_EXAMPLE,
        has_deadline=True,
    ),
)
async def score(request: Request) -> Response:
    """Score up to 1,000 ads; an unknown ad is reported in its line."""
    services = admit(request, "score")
    asked = await body.read(request, _decoder, services.settings.max_body_bytes)
    bundle, _, role = answering(services.state, asked.user_key)
    query = scoring.ScoreQuery(asked.user, asked.ad_ids)
    request_ids.note(None, bundle.snapshot_id)
    scored = scoring.score(bundle, query, time.time_ns() // 1_000_000)
    _BY_ROLE[role].inc(len(scored))
    return body.answer(
        ScoreAnswer(
            snapshot_id=bundle.snapshot_id,
            catalog_version=bundle.live.version,
            ads=scored,
        )
    )


@router.post(
    "/v1/score:batch",
    **operation(
        summary="Score ads for many users",
        scope="score",
        body=BatchRequest,
        answers={200: BatchAnswer},
        example=_BATCH_EXAMPLE,
        has_deadline=True,
    ),
)
async def score_batch(request: Request) -> Response:
    """Score up to 10,000 pairs; the figures are those that `/v1/score` gives.

    While a canary runs, a share of batches is answered by it: each of them as a whole.
    """
    services = admit(request, "score")
    asked = await body.read(request, _batch_decoder, services.settings.max_body_bytes)
    queries = _queries(asked)
    bundle, _, role = answering(services.state)
    request_ids.note(None, bundle.snapshot_id)
    scored = scoring.score_many(bundle, queries, time.time_ns() // 1_000_000)
    _BY_ROLE[role].inc(sum(len(query.ad_ids) for query in queries))
    return body.answer(
        BatchAnswer(
            snapshot_id=bundle.snapshot_id, catalog_version=bundle.live.version, users=scored
        )
    )


def _queries(asked: BatchRequest) -> list[scoring.ScoreQuery]:
    """One query a user. Raises `BodyInvalid` for a user without ads, or too many pairs."""
    queries = [scoring.ScoreQuery(one.user, one.ad_ids or asked.ad_ids) for one in asked.users]
    without = next((at for at, query in enumerate(queries) if not query.ad_ids), None)
    if without is not None:
        field = f"users[{without}].ad_ids"
        raise body.refuse(field, None, "at least one ad", "Give ad_ids here or for all users.")
    pairs = sum(len(query.ad_ids) for query in queries)
    if pairs > _MOST_PAIRS:
        limit = f"at most {_MOST_PAIRS} pairs of a user and an ad"
        raise body.refuse("users", pairs, limit, "Send several batches.")
    return queries
