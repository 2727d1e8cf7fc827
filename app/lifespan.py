"""The life of one worker: opens what it needs, starts its watcher, closes in reverse order."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from app import metrics
from app.api.services import Services
from app.serving.click_rules import ClickRules, Limits
from app.serving.lease import Lease
from app.serving.state import WorkerState
from app.serving.watcher import Watcher
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.events import EventWriter
from models.features import Encoder, load_schema

_LOOK_S = 0.02


@asynccontextmanager
async def opened(app: FastAPI, settings: Settings, database_url: str) -> AsyncIterator[None]:
    """Open the services and put them on `app.state.services`; follow the database meanwhile.

    Does not wait for the database: a worker that starts while it is away becomes ready later.
    """
    encoder = Encoder(load_schema(settings.features))
    database = Database(database_url, settings.database_pool)
    state = WorkerState(lease=Lease(settings.serve_alone_s))
    events = EventWriter(
        database,
        settings.event_buffer,
        window_s=settings.attribution_window_s,
        told_erased=metrics.ERASED_EVENTS.inc,
    )
    rules = ClickRules(
        Limits(
            settings.click_rule_window_s,
            settings.clicks_per_token,
            settings.clicks_per_address,
            settings.clicks_per_impression,
        )
    )
    app.state.services = Services(
        settings, encoder, state, database, Catalog(database), events, rules
    )
    watcher = Watcher(database, state, encoder, settings)
    following = asyncio.create_task(watcher.run())
    _end_with_parent()
    try:
        yield
    finally:
        await watcher.close(following)
        await events.close()
        await database.close()


async def can_decide(app: FastAPI, seconds: float) -> bool:
    """Whether the worker has what it needs to decide; waits for it, at most so many seconds."""
    state: WorkerState = app.state.services.state
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while state.bundle is None or not state.lease.holds():  # noqa: ASYNC110 - of others
                await asyncio.sleep(_LOOK_S)
    return state.bundle is not None and state.lease.holds()


def _end_with_parent() -> None:
    """Stop this worker when the process that started it is gone, even by kill -9."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop = asyncio.get_running_loop()
        loop.add_reader(parent.sentinel, os.kill, os.getpid(), signal.SIGTERM)
