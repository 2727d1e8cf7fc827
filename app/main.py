"""The web process: `create_app` wires it, here and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from app import errors, logs, metrics, settings, tracing
from app.api import (
    ads,
    advertisers,
    audit,
    browser_events,
    campaigns,
    comparing,
    decisions,
    document,
    events,
    explain,
    health,
    openapi,
    placements,
    quarantine,
    reports,
    retrains,
    score,
    snapshots,
    users,
)
from app.connection.arrival import LIMITER, MOST_CONNECTIONS, SLOW_CLIENTS
from app.connection.direct import Direct
from app.connection.observed import Observed
from app.connection.overload import Limiter
from app.connection.slow_clients import SlowClients
from app.connection.traced import Traced
from app.database_url import database_url
from app.lifespan import can_decide, opened
from app.settings import Settings

_ROUTERS = (
    *(score, decisions, explain, events, browser_events),
    *(ads, campaigns, advertisers, placements, quarantine, snapshots, retrains),
    *(comparing, reports, users, audit),
)
# The framework's own would send addresses, and browsers' links have tokens in them.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
_SOON_S, _AT_LEAST_S = 10.0, 55.0
_SWITCH_S = 0.0001
"""How long a thread that loads a snapshot may keep a request waiting for the interpreter. A request
lets go of it at each operation on a larger array, and waits so long each time."""


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
            slow = SlowClients(given.request_timeout_s)
            yield {MOST_CONNECTIONS: given.connections, LIMITER: limiter, SLOW_CLIENTS: slow}
        tracing.stop()

    app = _App(
        given,
        limiter,
        busiest,
        title="Adscent",
        version="1",
        description="Choose ads, store their events, run the catalog and the model.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry=_NO_TELEMETRY,
        redirect_slashes=False,  # the redirect would lead to whatever host the request names
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
    tracing.start("adscent-serve", given.otel_endpoint)
    switch_often()
    metrics.WORKERS.set(1)
    return create_app(given)


def in_place_of_another() -> FastAPI:
    """The application of a process that takes the place of one that ended.

    It listens once it can decide, or after a while: better an answer that says what is missing
    than none.
    """
    return _waiting(from_environment(), _SOON_S, is_needed=False)


def after_another() -> FastAPI:
    """The application of a process that another one waits for. It does not start at all where it
    could not decide."""
    return _waiting(from_environment(), _AT_LEAST_S, is_needed=True)


def _waiting(app: FastAPI, seconds: float, *, is_needed: bool) -> FastAPI:
    """The application, whose start waits until it can decide."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(given: FastAPI) -> AsyncIterator[Any]:
        async with inner(given) as state:
            if not await can_decide(app, seconds) and is_needed:
                raise RuntimeError("no snapshot and catalog could be loaded in time")
            yield state

    app.router.lifespan_context = lifespan
    return app


def switch_often() -> None:
    """Let requests take the interpreter soon from threads that load a snapshot."""
    sys.setswitchinterval(_SWITCH_S)


class _App(FastAPI):
    """The short way goes around the framework's own layers as well, observed like any other."""

    def __init__(
        self, chosen: Settings, limiter: Limiter, busiest: Sequence[APIRoute], **given: Any
    ) -> None:
        super().__init__(**given)
        self._chosen, self._limiter, self._busiest = chosen, limiter, busiest

    def build_middleware_stack(self) -> ASGIApp:
        """The layers of every request, the outermost first."""
        framework = super().build_middleware_stack()
        direct = Direct(framework, self._limiter, self._busiest)
        inner = direct if tracing.tracer() is None else Traced(direct)
        return Observed(inner, self._chosen.log_requests)
