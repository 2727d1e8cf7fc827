"""The outermost layer of every request: counted, timed, named, its answer made safe to show."""

from __future__ import annotations

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import metrics, request_ids
from app.request_ids import HEADER, Ids

SAFE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""On every answer: a browser must neither guess another type nor run or frame what we send."""
_NOT_KEPT = (b"cache-control", b"no-store")

_log = structlog.get_logger(__name__)


class Observed:
    """Counts and times every request by its route, never by its address.

    `logged`: the share of the requests that have a line of the log.
    """

    def __init__(self, app: ASGIApp, logged: float) -> None:
        self._app, self._logged = app, logged
        self._owed = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, note its status, name it in the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ids = request_ids.begin(scope["headers"])
        status = 500
        started = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A new list: some answers are made once and sent many times.
                message["headers"] = _completed(message["headers"], ids)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.observe(route, scope["method"], status, seconds)
            if self._is_logged():
                _tell(route, scope["method"], status, seconds)

    def _is_logged(self) -> bool:
        self._owed += self._logged
        if self._owed < 1.0:
            return False
        self._owed -= 1.0
        return True


def _completed(headers: list[tuple[bytes, bytes]], ids: Ids) -> list[tuple[bytes, bytes]]:
    more = [*headers, (HEADER, ids.request_id.encode("ascii")), *SAFE]
    if not any(name == b"cache-control" for name, _ in headers):
        more.append(_NOT_KEPT)
    return more


def _tell(route: str, method: str, status: int, seconds: float) -> None:
    _log.info(
        "request_answered",
        route=route,
        method=metrics.method_named(method),
        status=status,
        milliseconds=round(seconds * 1000, 3),
    )
