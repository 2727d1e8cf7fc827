"""Keeps one worker's memory current: catalog, snapshot and keys, by NOTIFY with polls as backstop.

Each part is replaced by one assignment. While the database is away the worker goes on with what it
has; everything that was missed is read when the database is back.
"""

from __future__ import annotations

import asyncio
import gc
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

from app import heap, metrics
from app.ids import uuid7
from app.serving import loading
from app.serving.bundle import Bundle
from app.serving.image import Image, mapped
from app.serving.live import LiveCatalog
from app.serving.state import KeyHolder, WorkerState
from app.serving.tokens import Tokens
from app.settings import Settings
from app.storage import keys, snapshots, workers
from app.storage.catalog import Catalog
from app.storage.engine import CHANNEL, Database
from app.storage.errors import StorageError
from models.errors import ModelError, SnapshotCorrupt
from models.features import Encoder
from models.snapshot import Manifest, Served

_KEYS_EVERY_S = 2.0
_BEAT_EVERY_S = 1.0
_LISTEN_AGAIN_S = 1.0
_LOAD_AGAIN_S = 10.0
_LOOKED_BACK = 50
_NEAR = 20_000
"""Ads that may have changed since an image of the catalog for a serving worker to use it."""
_NONE = UUID(int=0)
"""What a worker reports to serve while it is changing from one snapshot to another."""

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
        self._vouches = True
        self._beating = asyncio.Lock()
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
        self._state.tokens = Tokens(
            *(secrets, current, int(self._settings.token_lifetime_s * 1000)),
            {"conversion": int(self._settings.conversion_window_s * 1000)},
        )
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
        # Off the event loop: compiling the targeting of thousands of ads takes a second.
        return bundle.with_live(await asyncio.to_thread(bundle.live.apply, changes))

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
                    return await self._swap(snapshot_id, falls_back=True)
        return None

    @staticmethod
    def _waits(wanted: UUID, refused: UUID, at_s: float) -> bool:
        return wanted == refused and time.monotonic() < at_s + _LOAD_AGAIN_S

    async def _swap(self, snapshot_id: UUID, *, falls_back: bool = False) -> None:
        started = time.perf_counter()
        loaded = await self._loaded(snapshot_id, self._state.bundle)
        # From here until the bundle is taken this worker vouches for no snapshot. Said before the
        # last looks at what is to serve and at the catalog: a rollback or a change that did not
        # wait for this worker is in those looks.
        self._vouches = False
        try:
            await self._beat()
            is_wanted = falls_back or await self._is_wanted(snapshot_id)
            if is_wanted:
                await self._take(loaded)
        finally:
            self._vouches = True
        if is_wanted:
            seconds = time.perf_counter() - started
            metrics.SWAPS.observe(seconds)
            _log.info("snapshot_serving", snapshot_id=str(snapshot_id), seconds=round(seconds, 3))
        await self._beat()
        del loaded
        await asyncio.to_thread(heap.give_back)

    async def _is_wanted(self, snapshot_id: UUID) -> bool:
        """Whether this is still the snapshot to serve, after all the time that loading it took."""
        serving = await snapshots.serving(self._database)
        return serving is not None and serving.snapshot_id == snapshot_id

    async def _take(self, loaded: Bundle) -> None:
        if self._state.bundle is None:
            # What is here now stays. Looking through it for garbage would take 0.1 s every time.
            gc.collect()
            gc.freeze()
        async with self._turn:
            bundle = await self._caught_up(loaded)
            self._state.bundle = bundle
            self._state.catalog_version = bundle.live.version
            self._state.snapshot_fault = self._refused = None

    async def _loaded(self, snapshot_id: UUID, incumbent: Bundle | None) -> Bundle:
        """A warm bundle of the snapshot, its catalog almost current; made in other threads."""
        recorded = (await snapshots.get_snapshot(self._database, snapshot_id)).manifest
        folder = Path(self._settings.snapshot_store) / str(snapshot_id)
        found = await asyncio.to_thread(loading.served, folder, recorded, self._encoder)
        live = await self._live(found, folder, incumbent)
        # Most of what is new is read here: pauses must not wait until it is, behind the turn.
        bundle = await self._caught_up(loading.bundled(found, live, self._encoder))
        await asyncio.to_thread(self._warm, bundle, incumbent)
        metrics.SNAPSHOT_LOADED_AT.set(recorded.created_ms / 1000)
        return bundle

    async def _live(self, found: Served, folder: Path, incumbent: Bundle | None) -> LiveCatalog:
        """The catalog over a snapshot: as it knew it, as it is served now, or all of it anew."""
        over = (found.index, found.model)
        image = await asyncio.to_thread(self._image, folder, found.manifest)
        if image is not None and await self._is_near(image.version, incumbent):
            given = (image.version, image.columns, image.placements)
            return await asyncio.to_thread(LiveCatalog.over, *given, *over, self._encoder)
        if incumbent is not None:
            return await asyncio.to_thread(incumbent.live.attach, *over)
        whole = await self._catalog.changes_since(0)
        return await asyncio.to_thread(LiveCatalog.load, whole, *over, self._encoder)

    @staticmethod
    def _image(folder: Path, recorded: Manifest) -> Image | None:
        try:
            return mapped(folder, recorded)
        except SnapshotCorrupt as error:
            # The snapshot itself is sound, and the database has the catalog.
            _log.warning("catalog_image_refused", snapshot_id=str(recorded.id), error=str(error))
            return None

    async def _is_near(self, version: int, incumbent: Bundle | None) -> bool:
        """Whether a catalog of this version is soon current. A restored database may be older."""
        if version > await self._catalog.version():
            return False
        return incumbent is None or await self._catalog.count_since(version) <= _NEAR

    def _warm(self, bundle: Bundle, incumbent: Bundle | None) -> None:
        tokens = self._state.tokens
        assert tokens is not None  # noqa: S101  # the keys are loaded before the first snapshot
        queries = tuple(self._state.recorded)
        loading.warm(bundle, incumbent, queries, tokens, time.time_ns() // 1_000_000)

    def _refuse(self, snapshot_id: UUID, error: ModelError) -> None:
        self._refused = (snapshot_id, time.monotonic())
        self._state.snapshot_fault = f"snapshot {snapshot_id} is promoted but not served: {error}"
        metrics.SNAPSHOT_FAULTS.inc()
        _log.error("snapshot_refused", snapshot_id=str(snapshot_id), error=str(error))

    async def _beat(self) -> None:
        """Report what this worker has applied; enter it first where it is not known.

        One report after the other: an older one must not be the last to arrive.
        """
        async with self._beating:
            bundle, version = self._state.bundle, self._state.catalog_version
            held = None if bundle is None else bundle.snapshot_id
            snapshot_id = held if self._vouches else _NONE
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
