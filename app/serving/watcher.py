"""Keeps one worker's memory current: catalog, snapshot and keys, by NOTIFY with polls as backstop.

Each part is replaced by one assignment. While the database is away the worker goes on with what it
has; everything that was missed is read when the database is back.
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import structlog

from app import heap, metrics
from app.ids import made_ms, uuid7
from app.serving import rates
from app.serving.bundle import Bundle
from app.serving.reports import Applied
from app.serving.state import KeyHolder, WorkerState
from app.serving.tokens import Tokens
from app.serving.watcher_canary import CanaryFollower, Loading
from app.serving.watcher_erasures import ErasureFollower
from app.serving.watcher_loading import BundleLoader
from app.settings import Settings
from app.storage import keys, snapshots, workers
from app.storage.catalog import Catalog
from app.storage.engine import CHANNEL, Database
from app.storage.errors import StorageError, StoreUnavailable
from app.storage.keys import ApiKey
from app.storage.snapshot_store import open_store
from models.errors import ModelError
from models.features import Encoder

_KEYS_EVERY_S = 2.0
_BEAT_EVERY_S = 1.0
_LISTEN_AGAIN_S = 1.0
_DEAF_POLL_S = 0.05
"""How often the catalog is looked at while nobody can tell of its changes."""
_LOAD_AGAIN_S = 10.0
_LOOKED_BACK = 50
_NONE = UUID(int=0)
"""What a worker reports to serve while it is changing from one snapshot to another."""

_OWN: set[UUID] = set()
"""The workers of this process: more than one where several applications run in it."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Moved:
    """Set by a notification; each follower clears its own."""

    catalog: asyncio.Event = field(default_factory=asyncio.Event)
    snapshot: asyncio.Event = field(default_factory=asyncio.Event)
    canary: asyncio.Event = field(default_factory=asyncio.Event)
    keys: asyncio.Event = field(default_factory=asyncio.Event)
    erasures: asyncio.Event = field(default_factory=asyncio.Event)
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
        _OWN.add(self._worker_id)
        self._hears = False
        self._entries = 0
        self._is_current = False
        self._vouches = True
        self._beating = asyncio.Lock()
        self._refused: tuple[UUID, float] | None = None
        self._store = open_store(settings)
        given = (database, state, encoder, self._store, self._caught_up)
        self._loader = BundleLoader(*given)
        ways = Loading(self._loader.load, self._caught_up, self._beat, self._turn)
        self._canary = CanaryFollower(database, state, ways)
        self._erasures = ErasureFollower(database, state, encoder, self._turn)
        self._erasures_at = 0

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
        deaf_s = min(poll_s, _DEAF_POLL_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow(self._moved.keys, _KEYS_EVERY_S, self._sync_keys))
            group.create_task(self._follow(self._moved.catalog, poll_s, self._sync_catalog, deaf_s))
            group.create_task(self._follow(self._moved.snapshot, poll_s, self._sync_snapshot))
            group.create_task(self._follow(self._moved.canary, poll_s, self._canary.sync))
            group.create_task(self._follow(self._moved.erasures, poll_s, self._sync_erasures))
            group.create_task(self._follow(self._moved.beat, _BEAT_EVERY_S, self._beat))

    async def _follow(
        self,
        moved: asyncio.Event,
        every_s: float,
        sync: Callable[[], Awaitable[None]],
        deaf_s: float | None = None,
    ) -> None:
        """`sync` when it is told to, and every so often: every `deaf_s` while nothing is heard."""
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
                wait_s = every_s if self._hears or deaf_s is None else deaf_s
                async with asyncio.timeout(wait_s):
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
            started_s = time.monotonic()
            with suppress(StorageError):
                await self._listen_once()
            # A session that was ended is replaced at once; where that happens again and again, or
            # none can be had, new ones would take more time than polls do.
            await asyncio.sleep(max(0.0, started_s + _LISTEN_AGAIN_S - time.monotonic()))

    async def _listen_once(self) -> None:
        closed = asyncio.Event()
        async with self._database.session(command_timeout=None) as connection:
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(CHANNEL, self._heard)
            self._hears = True
            self._wake_all()  # what was said while nobody listened
            try:
                await closed.wait()
            finally:
                self._hears = False
                self._moved.catalog.set()

    def _wake_all(self) -> None:
        moved = self._moved
        for event in (moved.catalog, moved.snapshot, moved.canary, moved.keys, moved.erasures):
            event.set()

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        parsed: Any = json.loads(payload)
        if parsed.get("kind") == "worker":
            self._state.reports.hear(*_report(parsed))
        moved = getattr(self._moved, str(parsed.get("kind")), None)
        if isinstance(moved, asyncio.Event):
            moved.set()

    async def _sync_keys(self) -> None:
        found = await keys.live_api_keys(self._database)
        self._state.keys = {key.sha256: self._holder(key) for key in found}
        ends_s = (holder.expires_s for holder in self._state.keys.values())
        metrics.KEY_EXPIRY.set(min((end for end in ends_s if end is not None), default=math.inf))
        secrets, current = await keys.token_keys(self._database)
        if self._state.tokens is None:
            self._moved.snapshot.set()
        self._state.tokens = Tokens(
            *(secrets, current, int(self._settings.token_lifetime_s * 1000)),
            {"conversion": int(self._settings.conversion_window_s * 1000)},
        )
        self._state.keys_loaded = True

    def _holder(self, key: ApiKey) -> KeyHolder:
        """What a worker keeps of a key; requests that it has admitted so far go on counting."""
        known = self._state.keys.get(key.sha256)
        rate = (
            self._settings.key_requests_per_s if key.requests_per_s is None else key.requests_per_s
        )
        return KeyHolder(
            str(key.id),
            key.name,
            key.scopes,
            rates.kept(None if known is None else known.bucket, rate, time.monotonic()),
            None if key.expires_ms is None else key.expires_ms / 1000.0,
        )

    async def _sync_catalog(self) -> None:
        entries = self._entries
        async with self._turn:
            bundle = self._state.bundle
            if bundle is None:
                # Nothing is served yet, so every committed change holds; the first load reads the
                # catalog anew and is caught up before it serves.
                version = await self._catalog.version()
            else:
                bundle, canary = await self._caught_up(bundle), self._state.canary
                if canary is not None:
                    canary = replace(canary, bundle=await self._caught_up(canary.bundle))
                self._state.bundle, self._state.canary = bundle, canary
                version = bundle.live.version  # the canary was caught up after it
            moved = version != self._state.catalog_version
            self._state.catalog_version = version
        metrics.CATALOG_VERSION.set(version)
        self._is_current |= entries == self._entries
        if moved or not self._state.lease.holds():
            await self._beat()

    async def _sync_erasures(self) -> None:
        await self._entered.wait()
        entries, is_first = self._entries, not self._erasures.is_read
        await self._erasures.sync(self._worker_id)
        self._erasures_at = entries
        if is_first:
            self._moved.snapshot.set()
        if not self._state.lease.holds():
            await self._beat()

    async def _caught_up(self, bundle: Bundle) -> Bundle:
        bundle = await self._erasures.fit(bundle)
        changes = await self._catalog.changes_since(bundle.live.version)
        if changes.version == bundle.live.version:
            return bundle
        # Off the event loop: compiling the targeting of thousands of ads takes a second.
        return bundle.with_live(await asyncio.to_thread(bundle.live.apply, changes))

    async def _sync_snapshot(self) -> None:
        await self._entered.wait()
        serving = await snapshots.serving(self._database)
        bundle = self._state.bundle
        if serving is None or self._state.tokens is None or not self._erasures.is_read:
            return
        if bundle is not None and bundle.snapshot_id == serving.snapshot_id:
            self._state.snapshot_fault = self._refused = None  # rolled back to what is served
            return
        if self._refused is not None and self._waits(serving.snapshot_id, *self._refused):
            return
        try:
            await self._swap(serving.snapshot_id)
        except (ModelError, StoreUnavailable) as error:
            if bundle is None:
                await self._fall_back(serving.snapshot_id)
            self._refuse(serving.snapshot_id, error)

    async def _fall_back(self, refused: UUID) -> None:
        """With nothing in memory, serve the newest earlier snapshot that still loads."""
        earlier = await snapshots.list_promotions(self._database, _LOOKED_BACK)
        for snapshot_id in dict.fromkeys(promotion.snapshot_id for promotion in earlier):
            if snapshot_id != refused:
                with suppress(ModelError, StoreUnavailable):
                    return await self._swap(snapshot_id, falls_back=True)
        return None

    @staticmethod
    def _waits(wanted: UUID, refused: UUID, at_s: float) -> bool:
        return wanted == refused and time.monotonic() < at_s + _LOAD_AGAIN_S

    async def _swap(self, snapshot_id: UUID, *, falls_back: bool = False) -> None:
        started = time.perf_counter()
        canary = self._state.canary
        if canary is not None and canary.bundle.snapshot_id == snapshot_id:
            loaded = canary.bundle  # promoted: it is warm already
        else:
            loaded = await self._loader.load(snapshot_id, self._state.bundle)
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
        del loaded, canary
        await asyncio.to_thread(heap.give_back)
        held = [one.snapshot_id for one in self._bundles()]
        await asyncio.to_thread(self._store.evict, held)

    def _bundles(self) -> list[Bundle]:
        canary = None if self._state.canary is None else self._state.canary.bundle
        return [bundle for bundle in (self._state.bundle, canary) if bundle is not None]

    async def _is_wanted(self, snapshot_id: UUID) -> bool:
        """Whether this is still the snapshot to serve, after all the time that loading it took."""
        serving = await snapshots.serving(self._database)
        return serving is not None and serving.snapshot_id == snapshot_id

    async def _take(self, loaded: Bundle) -> None:
        if self._state.bundle is None:
            # What is here now stays. Looking through it for garbage would take 0.1 s every time.
            gc.collect()
            gc.freeze()
        entries = self._entries
        async with self._turn:
            bundle, canary = await self._caught_up(loaded), self._state.canary
            if self._state.bundle is None or (
                canary is not None and canary.bundle.snapshot_id == bundle.snapshot_id
            ):
                self._state.canary = None  # promoted, or of a catalog that nobody followed
            self._state.bundle = bundle
            self._state.catalog_version = bundle.live.version
            self._state.snapshot_fault = self._refused = None
        self._is_current &= entries == self._entries  # else the catalog is read again
        metrics.SNAPSHOT_LOADED_AT.labels("incumbent").set(made_ms(bundle.snapshot_id) / 1000)

    def _refuse(self, snapshot_id: UUID, error: Exception) -> None:
        self._refused = (snapshot_id, time.monotonic())
        self._state.snapshot_fault = f"snapshot {snapshot_id} is promoted but not served: {error}"
        metrics.SNAPSHOT_FAULTS.inc()
        _log.error("snapshot_refused", snapshot_id=str(snapshot_id), error=str(error))

    async def _beat(self) -> None:
        """Report what this worker has applied; enter it first where it is not known.

        One report after the other: an older one must not be the last to arrive.
        """
        async with self._beating:
            sent_s = self._state.lease.now()
            bundle, version = self._state.bundle, self._state.catalog_version
            held = None if bundle is None else bundle.snapshot_id
            snapshot_id = held if self._vouches else _NONE
            told = (self._database, self._worker_id, version, snapshot_id, self._canary.reported)
            if not await workers.beat(*told):
                # Others may have confirmed changes without this worker.
                self._state.lease.end()
                await self._register(version, snapshot_id)
            if self._is_current and self._erasures_at == self._entries:
                self._state.lease.renew(sent_s)

    async def _register(self, version: int, snapshot_id: UUID | None) -> None:
        host, pid = workers.this_host(), os.getpid()
        for worker in await workers.live(self._database):
            if (worker.host, worker.pid) == (host, pid) and worker.worker_id not in _OWN:
                # A process before this one had the same number.
                await workers.leave(self._database, worker.worker_id)
        alone_s = self._settings.serve_alone_s
        await workers.register(
            self._database, self._worker_id, host, pid, version, snapshot_id, alone_s
        )
        # Whatever is read of the catalog from here on holds every change that did not wait for
        # this worker; without a bundle nothing older is served.
        self._entries += 1
        self._is_current = self._state.bundle is None
        self._moved.catalog.set()
        self._moved.erasures.set()
        self._entered.set()


def _report(told: Mapping[str, Any]) -> tuple[UUID, Applied]:
    given = told["snapshot_id"]
    snapshot_id = None if given is None else UUID(given)
    return UUID(told["id"]), Applied(told["catalog_version"], snapshot_id, told["canary_id"])
