"""From a recorded snapshot to a warm bundle: files here, catalog over them, queries asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import structlog

from app.beside import beside
from app.serving import loading
from app.serving.bundle import Bundle
from app.serving.image import FILE, Image, mapped
from app.serving.live import LiveCatalog
from app.serving.state import WorkerState
from app.storage import snapshots
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.snapshot_store import SnapshotStore
from models.errors import SnapshotCorrupt
from models.features import Encoder
from models.snapshot import Manifest, Served

SERVED_FILES = ("model.", "index.", FILE)
"""What a worker copies of a snapshot."""

_NEAR = 20_000
"""Ads that may have changed since an image of the catalog for a serving worker to use it."""

_log = structlog.get_logger(__name__)


class BundleLoader:
    """Makes bundles in other threads; `caught_up` brings one up to the newest catalog."""

    def __init__(
        self,
        database: Database,
        state: WorkerState,
        encoder: Encoder,
        store: SnapshotStore,
        caught_up: Callable[[Bundle], Awaitable[Bundle]],
    ) -> None:
        self._database, self._state, self._encoder = database, state, encoder
        self._store, self._caught_up = store, caught_up
        self._catalog = Catalog(database)

    async def load(self, snapshot_id: UUID, incumbent: Bundle | None) -> Bundle:
        """A warm bundle of the snapshot, its catalog almost current; made in other threads."""
        recorded = (await snapshots.get_snapshot(self._database, snapshot_id)).manifest
        folder = await beside(self._store.fetch, recorded, SERVED_FILES)
        try:
            found = await beside(loading.served, folder, recorded, self._encoder)
        except SnapshotCorrupt:
            await asyncio.to_thread(self._store.mend, recorded)
            raise
        live = await self._live(found, folder, incumbent)
        # Most of what is new is read here: pauses must not wait until it is, behind the turn.
        bundle = await self._caught_up(loading.bundled(found, live, self._encoder))
        await asyncio.to_thread(self._warm, bundle, incumbent)
        return bundle

    async def _live(self, found: Served, folder: Path, incumbent: Bundle | None) -> LiveCatalog:
        """The catalog over a snapshot: as it knew it, as it is served now, or all of it anew."""
        over = (found.index, found.model)
        image = await beside(self._image, folder, found.manifest)
        if image is not None and await self._is_near(image.version, incumbent):
            given = (image.version, image.columns, image.placements)
            return await beside(LiveCatalog.over, *given, *over, self._encoder)
        if incumbent is not None:
            return await beside(incumbent.live.attach, *over)
        whole = await self._catalog.changes_since(0)
        return await beside(LiveCatalog.load, whole, *over, self._encoder)

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
