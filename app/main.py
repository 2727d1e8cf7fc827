"""The web process: `create_app` wires it, here and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors, logs, metrics, settings
from app.api import (
    ads,
    advertisers,
    browser_events,
    campaigns,
    decisions,
    document,
    events,
    explain,
    health,
    openapi,
    placements,
    quarantine,
    retrains,
    score,
    snapshots,
)
from app.arrival import LIMITER, MOST_CONNECTIONS
from app.database_url import database_url
from app.direct import Direct
from app.lifespan import opened
from app.overload import Limiter
from app.settings import Settings

_ROUTERS = (
    *(score, decisions, explain, events, browser_events),
    *(ads, campaigns, advertisers, placements, quarantine, snapshots, retrains),
)
_SWITCH_S = 0.001
"""How long a thread that loads a snapshot may keep a request waiting for the interpreter."""


def create_app(given: Settings, extra_routes: Sequence[BaseRoute] = ()) -> FastAPI:
    """The application; `extra_routes` lets a benchmark add an endpoint to the same app."""

    busiest = [
        route
        for module in (score, decisions)
        for route in module.router.routes
        if isinstance(route, APIRoute)
    ]
    limiter = Limiter((route.path for route in busiest), given.deadline_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with opened(app, given, database_url(given)):
            yield {MOST_CONNECTIONS: given.connections, LIMITER: limiter}

    app = _App(
        limiter,
        busiest,
        title="Adscent",
        version="1",
        description="Choose ads, store their events, run the catalog and the model.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    for module in (*_ROUTERS, document, health):
        app.include_router(module.router)
    app.router.routes.extend(extra_routes)
    errors.install(app)
    openapi.install(app)
    return app


def from_environment() -> FastAPI:
    """The application of a server process, set up from its environment."""
    given = settings.from_environment()
    logs.configure(given.log_level)
    switch_often()
    return create_app(given)


def switch_often() -> None:
    """Let requests take the interpreter from threads that load a snapshot after a millisecond."""
    sys.setswitchinterval(_SWITCH_S)


class _App(FastAPI):
    """The short way goes around the framework's own layers as well, observed like any other."""

    def __init__(self, limiter: Limiter, busiest: Sequence[APIRoute], **given: Any) -> None:
        super().__init__(**given)
        self._limiter, self._busiest = limiter, busiest

    def build_middleware_stack(self) -> ASGIApp:
        """The layers of every request, the outermost first."""
        framework = super().build_middleware_stack()
        return _Observed(Direct(framework, self._limiter, self._busiest))


class _Observed:
    """Counts and times every request by its route, never by its address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note its status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            metrics.observe(route, scope["method"], status, time.perf_counter() - started)
