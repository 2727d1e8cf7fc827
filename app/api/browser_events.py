"""Events that a browser sends by itself: the pixel of an impression, the link of a click.

Neither needs a key: the token is the proof, and a repeat is a duplicate. The pixel is an image
whatever happens; its status tells a program what a page cannot show. A click leads on whenever the
token is genuine: what the visitor asked for does not depend on whether we could count it.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app import metrics
from app.api import intake
from app.api.openapi import fault
from app.api.schemas import EventBody
from app.api.services import Services, bundle_of, services_of
from app.errors import LinkInvalid, NotReady
from app.serving.tokens import TokenContent, TokenInvalid
from app.storage.errors import BufferFull, DatabaseUnavailable

router = APIRouter(tags=["browser"])

_GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_OUTCOME = "X-Adscent-Event"
_NEVER_STORED = {"Cache-Control": "no-store"}
# A page that isolates itself (Cross-Origin-Embedder-Policy) shows no image without it.
_ANYWHERE = {**_NEVER_STORED, "Cross-Origin-Resource-Policy": "cross-origin"}
_AWAY = (BufferFull, DatabaseUnavailable, NotReady)
_waiting: set[asyncio.Task[str]] = set()

_IMAGE = {"image/gif": {"schema": {"type": "string", "format": "binary"}, "example": "GIF89a"}}
_HEADERS = {
    _OUTCOME: {
        "description": "What became of the event: accepted, duplicate, or why it was not stored",
        "schema": {"type": "string"},
    }
}
_PIXEL: Mapping[int | str, dict[str, Any]] = {
    200: {
        "description": "The event is durable, or its token is refused",
        "content": _IMAGE,
        "headers": _HEADERS,
    },
    503: {
        "description": "The event is not stored: the database is away, or too much waits",
        "content": _IMAGE,
        "headers": _HEADERS,
    },
    422: fault(422),
}
_LINK: Mapping[int | str, dict[str, Any]] = {
    302: {
        "description": "On to the ad's landing page, as the catalog has it now",
        "headers": {**_HEADERS, "Location": {"schema": {"type": "string"}}},
    },
    404: fault(404),
    422: fault(422),
    503: fault(503),
}


@router.get(
    "/v1/e/i/{token}",
    summary="Store an impression from a page",
    response_class=Response,
    responses=dict(_PIXEL),
)
async def pixel(request: Request, token: str) -> Response:
    """A transparent GIF of one pixel, once the impression is durable. Needs no key.

    200 also for a token that is refused, since a page can do nothing about it; 503 where the event
    is lost unless the pixel is asked for again.
    """
    try:
        outcome, status = await _stored(request, "impression", token), 200
    except _AWAY:
        outcome, status = "unavailable", 503
    headers = {**_ANYWHERE, _OUTCOME: outcome}
    if status != 200:
        headers["Retry-After"] = "1"
    return Response(_GIF, status, headers, "image/gif")


@router.get(
    "/v1/e/c/{token}",
    summary="Store a click and lead to the ad's page",
    status_code=302,
    response_class=Response,
    responses=dict(_LINK),
)
async def link(request: Request, token: str) -> Response:
    """Redirect to the ad's own landing page. Needs no key.

    The address is the catalog's, never one of the request. A genuine token leads on even when it is
    too old to count, its ad is paused, or the database is away; a forged one is 404.
    """
    services = services_of(request)
    content = _genuine(services, token)
    address = _landing(services, content)
    outcome = await _stored_soon(request, token)
    return RedirectResponse(address, 302, {**_NEVER_STORED, _OUTCOME: outcome})


def _genuine(services: Services, token: str) -> TokenContent:
    try:
        return intake.tokens_of(services).read(token)
    except TokenInvalid as error:
        metrics.TOKENS_REFUSED.labels(error.reason).inc()
        raise LinkInvalid(f"the link's token is {error.reason}") from error


def _landing(services: Services, content: TokenContent) -> str:
    """The landing page of the token's ad. Raises `LinkInvalid` where the catalog has none."""
    live = bundle_of(services.state).live
    row = live.row_of(content.ad_id)
    address = "" if row is None else live.columns.creative(row).get("landing_url", "")
    if not address.startswith(("https://", "http://")):
        raise LinkInvalid(f"ad {content.ad_id} has no landing page any more")
    return address


async def _stored_soon(request: Request, token: str) -> str:
    """Store a click, but keep the visitor no longer than `click_wait_s`; it goes on after that."""
    task = asyncio.create_task(_stored(request, "click", token))
    _waiting.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(_ended)
    done, _ = await asyncio.wait([task], timeout=services_of(request).settings.click_wait_s)
    if done and task.exception() is None:
        return task.result()
    reason = "unavailable" if done else "slow"
    metrics.CLICKS_NOT_AWAITED.labels(reason).inc()
    return reason


def _ended(task: asyncio.Task[str]) -> None:
    _waiting.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that nothing complains that nobody did


async def _stored(request: Request, kind: Literal["impression", "click"], token: str) -> str:
    """Store one event; what became of it, or why its token was refused."""
    given = [EventBody(type=kind, token=token)]
    address = None if request.client is None else request.client.host
    now_ms = time.time_ns() // 1_000_000
    answer = await intake.store(services_of(request), given, now_ms, address)
    if answer.rejected:
        return answer.rejected[0].reason
    return "accepted" if answer.accepted else "duplicate"
