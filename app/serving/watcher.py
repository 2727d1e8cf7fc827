"""Keeps one worker's memory current: catalog, snapshot and keys, by NOTIFY with polls as backstop.

Each part is replaced by one assignment. While the database is away the worker goes on with what it
has; everything that was missed is read when the database is back.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from app import metrics
from app.ids import uuid7
from app.serving import pipeline
from app.serving.bundle import Bundle
from app.serving.live import LiveCatalog
from app.serving.state import KeyHolder, WorkerState
from app.serving.tokens import Tokens
from app.settings import Settings
from app.storage import keys, snapshots, workers
from app.storage.catalog import Catalog
from app.storage.engine import CHANNEL, Database
from app.storage.errors import StorageError
from models import snapshot as snapshot_folder
from models.errors import ModelError, SchemaMismatch
from models.features import Encoder
from models.snapshot import Manifest
from models.types import CatalogChanges

_KEYS_EVERY_S = 2.0
_BEAT_EVERY_S = 1.0
_LISTEN_AGAIN_S = 1.0
_LOAD_AGAIN_S = 10.0
_LOOKED_BACK = 50
_FIRST_QUERY = pipeline.DecisionQuery(user={}, slots=10)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Moved:
    """Set by a notification; each follower clears its own."""

    catalog: asyncio.Event = field(default_factory=asyncio.Event)
    snapshot: asyncio.Event = field(default_factory=asyncio.Event)
    keys: asyncio.Event = field(default_factory=asyncio.Event)
    beat: asyncio.Event = field(default_factory=asyncio.Event)


class Watcher:
    """Follows the database for one worker; `run` until cancelled."""

    def __init__(
        self,
        database: Database,
        state: WorkerState,
        encoder: Encoder,
        settings: Settings,
    ) -> None:
        self._database, self._state, self._encoder = database, state, encoder
        self._settings, self._worker_id = settings, uuid7(time.time_ns() // 1_000_000)
        self._catalog = Catalog(database)
        self._moved = _Moved()
        self._turn = asyncio.Lock()
        self._entered = asyncio.Event()
        self._closing = False
        self._announced: UUID | None = None
        self._refused: tuple[UUID, float] | None = None

    async def close(self, following: asyncio.Task[None]) -> None:
        """Stop `run`, and take this worker out of those that changes wait for."""
        # A driver may swallow the one cancellation that it was sent, hence the flag and the loop.
        self._closing = True
        while not following.done():
            following.cancel()
            await asyncio.wait([following], timeout=1.0)
        with suppress(StorageError):
            await workers.leave(self._database, self._worker_id)

    async def run(self) -> None:
        """Follow everything until cancelled.

        The worker enters itself before it reads the catalog: a change that was committed unseen by
        it then waits for it.
        """
        poll_s = self._settings.catalog_poll_s
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow(self._moved.keys, _KEYS_EVERY_S, self._sync_keys))
            group.create_task(self._follow(self._moved.catalog, poll_s, self._sync_catalog))
            group.create_task(self._follow(self._moved.snapshot, poll_s, self._sync_snapshot))
            group.create_task(self._follow(self._moved.beat, _BEAT_EVERY_S, self._beat))

    async def _follow(
        self, moved: asyncio.Event, every_s: float, sync: Callable[[], Awaitable[None]]
    ) -> None:
        while not self._closing:
            try:
                await sync()
                self._reached(True)
            except StorageError as error:
                self._reached(False, error)
            except Exception:
                # A fault in one round must not end the following: it would freeze the catalog.
                _log.exception("watcher_round_failed", round=sync.__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await moved.wait()
            moved.clear()

    def _reached(self, answered: bool, error: StorageError | None = None) -> None:
        if answered != self._state.database_reachable:
            told = _log.info if answered else _log.warning
            told("database_reachable" if answered else "database_unreachable", error=error)
        self._state.database_reachable = answered
        metrics.DATABASE_REACHABLE.set(answered)

    async def _listen(self) -> None:
        while not self._closing:
            with suppress(StorageError):
                await self._listen_once()
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen_once(self) -> None:
        closed = asyncio.Event()
        async with self._database.session(command_timeout=None) as connection:
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._wake_all()  # what was said while nobody listened
            await closed.wait()

    def _wake_all(self) -> None:
        for moved in (self._moved.catalog, self._moved.snapshot, self._moved.keys):
            moved.set()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        parsed: Any = json.loads(payload)
        moved = getattr(self._moved, str(parsed.get("kind")), None)
        if isinstance(moved, asyncio.Event):
            moved.set()

    async def _sync_keys(self) -> None:
        found = await keys.live_api_keys(self._database)
        self._state.keys = {
            key.sha256: KeyHolder(str(key.id), key.name, key.scopes) for key in found
        }
        secrets, current = await keys.token_keys(self._database)
        if self._state.tokens is None:
            self._moved.snapshot.set()
        self._state.tokens = Tokens(secrets, current, int(self._settings.token_lifetime_s * 1000))
        self._state.keys_loaded = True

    async def _sync_catalog(self) -> None:
        async with self._turn:
            bundle = self._state.bundle
            if bundle is None:
                # Nothing is served yet, so every committed change holds; the first load reads the
                # catalog anew and is caught up before it serves.
                version = await self._catalog.version()
            else:
                bundle = await self._caught_up(bundle)
                self._state.bundle, version = bundle, bundle.live.version
            moved = version != self._state.catalog_version
            self._state.catalog_version = version
        metrics.CATALOG_VERSION.set(version)
        if moved:
            await self._beat()

    async def _caught_up(self, bundle: Bundle) -> Bundle:
        changes = await self._catalog.changes_since(bundle.live.version)
        if changes.version == bundle.live.version:
            return bundle
        return bundle.with_live(bundle.live.apply(changes))

    async def _sync_snapshot(self) -> None:
        await self._entered.wait()
        serving = await snapshots.serving(self._database)
        bundle = self._state.bundle
        if serving is None or self._state.tokens is None:
            return
        if bundle is not None and bundle.snapshot_id == serving.snapshot_id:
            self._state.snapshot_fault = self._refused = None  # rolled back to what is served
            return
        if self._refused is not None and self._waits(serving.snapshot_id, *self._refused):
            return
        try:
            await self._swap(serving.snapshot_id)
        except ModelError as error:
            if bundle is None:
                await self._fall_back(serving.snapshot_id)
            self._refuse(serving.snapshot_id, error)

    async def _fall_back(self, refused: UUID) -> None:
        """With nothing in memory, serve the newest earlier snapshot that still loads."""
        earlier = await snapshots.list_promotions(self._database, _LOOKED_BACK)
        for snapshot_id in dict.fromkeys(promotion.snapshot_id for promotion in earlier):
            if snapshot_id != refused:
                with suppress(ModelError):
                    return await self._swap(snapshot_id)
        return None

    @staticmethod
    def _waits(wanted: UUID, refused: UUID, at_s: float) -> bool:
        return wanted == refused and time.monotonic() < at_s + _LOAD_AGAIN_S

    async def _swap(self, snapshot_id: UUID) -> None:
        started = time.perf_counter()
        incumbent = self._state.bundle
        catalog = await self._catalog.changes_since(0) if incumbent is None else None
        recorded = (await snapshots.get_snapshot(self._database, snapshot_id)).manifest
        loaded = await asyncio.to_thread(self._load, recorded, incumbent, catalog)
        if incumbent is None:
            # Changes wait only for workers that say they serve. Said before the last look at the
            # catalog, so that a change which did not wait is in that look.
            self._announced = snapshot_id
            await self._beat()
        async with self._turn:
            bundle = await self._caught_up(loaded)
            self._state.bundle = bundle
            self._state.catalog_version = bundle.live.version
            self._state.snapshot_fault = self._refused = None
        seconds = time.perf_counter() - started
        metrics.SWAPS.observe(seconds)
        _log.info("snapshot_serving", snapshot_id=str(snapshot_id), seconds=round(seconds, 3))
        await self._beat()

    def _load(
        self, recorded: Manifest, incumbent: Bundle | None, catalog: CatalogChanges | None
    ) -> Bundle:
        """Map, check, join with the catalog and warm a snapshot; in a thread of its own."""
        snapshot_id = recorded.id
        folder = Path(self._settings.snapshot_store) / str(snapshot_id)
        served = snapshot_folder.load_served(folder, recorded)
        schema = self._encoder.schema
        if served.manifest.schema_hash != schema.hash:
            raise SchemaMismatch(
                f"snapshot {snapshot_id} was trained under the feature schema"
                f" {served.manifest.schema_hash}, this server has {schema.hash}"
            )
        model, index = served.model, served.index
        if incumbent is not None:
            live = incumbent.live.attach(index, model)
        else:
            assert catalog is not None  # noqa: S101  # read by the caller when nothing is served
            live = LiveCatalog.load(catalog, index, model, self._encoder)
        bundle = Bundle(snapshot_id, schema, self._encoder, model, index, live)
        self._warm(bundle)
        metrics.SNAPSHOT_LOADED_AT.set(served.manifest.created_ms / 1000)
        return bundle

    def _warm(self, bundle: Bundle) -> None:
        tokens = self._state.tokens
        assert tokens is not None  # noqa: S101  # the keys are loaded before the first snapshot
        now_ms = time.time_ns() // 1_000_000
        for query in tuple(self._state.recorded) or (_FIRST_QUERY,):
            pipeline.decide(bundle, query, now_ms, UUID(int=0), tokens)

    def _refuse(self, snapshot_id: UUID, error: ModelError) -> None:
        self._refused = (snapshot_id, time.monotonic())
        self._state.snapshot_fault = f"snapshot {snapshot_id} is promoted but not served: {error}"
        metrics.SNAPSHOT_FAULTS.inc()
        _log.error("snapshot_refused", snapshot_id=str(snapshot_id), error=str(error))

    async def _beat(self) -> None:
        """Report what this worker has applied; enter it first where it is not known."""
        bundle = self._state.bundle
        snapshot_id = self._announced if bundle is None else bundle.snapshot_id
        version = self._state.catalog_version
        if not await workers.beat(self._database, self._worker_id, version, snapshot_id):
            await self._register()
            await workers.beat(self._database, self._worker_id, version, snapshot_id)

    async def _register(self) -> None:
        host, pid = socket.gethostname(), os.getpid()
        for worker in await workers.live(self._database):
            if (worker.host, worker.pid) == (host, pid):
                # A process before this one had the same number, in a container for instance.
                await workers.leave(self._database, worker.worker_id)
        await workers.register(self._database, self._worker_id, host, pid)
        self._entered.set()
