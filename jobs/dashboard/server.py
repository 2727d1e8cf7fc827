"""The dashboard's process: wired here, from its settings to its pages."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from nicegui import app as pages_app
from nicegui import ui
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from app import logs
from app.database_url import database_url
from app.settings import Settings, listening
from app.storage import migrate
from app.storage.engine import Database
from jobs.dashboard.attempts import Attempts
from jobs.dashboard.calls import Calls
from jobs.dashboard.frame import Desk
from jobs.dashboard.guard import Guard
from jobs.dashboard.login import Login, no_such_page
from jobs.dashboard.pages import ad, ads, events, model, overview, retrains, snapshot, snapshots
from jobs.dashboard.readings import Readings
from jobs.dashboard.sessions import Sessions
from jobs.dashboard.style import STYLE
from models.features import load_schema

_PAGES = (overview, model, snapshots, snapshot, ads, ad, events, retrains)
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  # compared with, not bound to
_GRACE_S = 3


def run(settings: Settings) -> None:
    """Serve the dashboard until SIGINT or SIGTERM.

    Raises `SchemaInvalid`, `DatabaseMissing`, `DatabaseUnavailable`, `MigrationsPending` and
    `AddressUnavailable` at the start.
    """
    logs.configure(settings.log_level)
    for name in ("httpx", "uvicorn.error"):  # they tell of every look, and name open pages
        logging.getLogger(name).setLevel(logging.WARNING)
    url = database_url(settings)
    asyncio.run(migrate.check(url))
    application = create_app(settings, url)
    configuration = uvicorn.Config(
        application,
        host=settings.dashboard_host,
        port=settings.dashboard_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    host, port = settings.dashboard_host, settings.dashboard_port
    with listening(host, port, "ADSCENT_DASHBOARD_"):
        bound = _bound(host, port)
    logging.getLogger(__name__).info("the dashboard is at http://%s:%d", *bound.getsockname()[:2])
    with bound:
        uvicorn.Server(configuration).run(sockets=[bound])


def create_app(settings: Settings, url: str) -> ASGIApp:
    """The application: what it shows is of the database at `url` and the settings' addresses."""
    database = Database(url, pool=4)
    sessions = Sessions(time.monotonic, settings.dashboard_session_s)
    readings = Readings(database, sessions, metrics_addresses(settings))
    calls = Calls(api_address(settings), sessions)
    desk = Desk(settings, load_schema(settings.features), database, sessions, readings, calls)

    app = FastAPI(
        lifespan=lambda _: _running(desk), openapi_url=None, docs_url=None, redoc_url=None
    )
    login = Login(database, sessions, Attempts(time.monotonic))
    app.router.routes.extend(login.routes())
    for page in _PAGES:
        page.add(desk)
    ui.add_css(STYLE, shared=True)
    ui.run_with(
        app,
        title="Adscent",
        dark=None,
        tailwind=False,
        language="en-US",
        show_welcome_message=False,
        binding_refresh_interval=None,
    )
    # The pages are routes of NiceGUI's own application, and so are their faults.
    for fault in (404, RequestValidationError):
        pages_app.add_exception_handler(fault, _no_such_page)
    return Guard(app, sessions)


async def _no_such_page(_request: Request, _error: Exception) -> Response:
    """For an address that is none, and for `/ads/abc`, whose id is none."""
    return no_such_page()


@asynccontextmanager
async def _running(desk: Desk) -> AsyncIterator[None]:
    """Read what the pages show, from before the first page until the last one is closed."""
    await desk.readings.refresh()
    following = asyncio.create_task(desk.readings.follow())
    try:
        yield
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await desk.calls.close()
        await desk.readings.close()
        await desk.database.close()


def api_address(settings: Settings) -> str:
    """Where `serve` listens."""
    if settings.dashboard_api is not None:
        return settings.dashboard_api.rstrip("/")
    return f"http://{_reachable(settings.host)}:{settings.port}"


def metrics_addresses(settings: Settings) -> list[str]:
    """Where the metrics of `serve` and `jobs` are."""
    if settings.dashboard_metrics is not None:
        return [one.strip() for one in settings.dashboard_metrics.split(",") if one.strip()]
    host = _reachable(settings.metrics_host)
    ports = (settings.metrics_port, settings.jobs_metrics_port)
    return [f"http://{host}:{port}/metrics" for port in ports]


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _reachable(host: str) -> str:
    """An address to call for one that is listened on."""
    if host in _EVERYWHERE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
