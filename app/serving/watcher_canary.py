"""Keeps one worker's canary as the database says: taken up, dropped, never served after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

import structlog

from app import metrics
from app.ids import made_ms
from app.serving.bundle import Bundle
from app.serving.canary import Canary
from app.serving.state import WorkerState
from app.storage import comparisons, snapshots
from app.storage.comparisons import Comparison
from app.storage.engine import Database
from app.storage.errors import StoreUnavailable
from models.errors import ModelError

CHANGING = 0
"""What a worker reports while it is taking a canary up: that it may be about to answer with it."""

_LOAD_AGAIN_S = 10.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loading:
    """The watcher's ways to a bundle: load and warm one beside the incumbent, catch one up with the
    catalog, and report what this worker holds; `turn` is held where bundles are replaced."""

    load: Callable[[UUID, Bundle | None], Awaitable[Bundle]]
    caught_up: Callable[[Bundle], Awaitable[Bundle]]
    beat: Callable[[], Awaitable[None]]
    turn: asyncio.Lock


class CanaryFollower:
    """Follows the canary that runs, apart from the incumbent: its faults delay no swap."""

    def __init__(self, database: Database, state: WorkerState, loading: Loading) -> None:
        self._database, self._state, self._loading = database, state, loading
        self._is_changing = False
        self._refused: tuple[int, float] | None = None

    @property
    def reported(self) -> int | None:
        """The comparison whose canary this worker answers with, `CHANGING`, or None."""
        if self._is_changing:
            return CHANGING
        canary = self._state.canary
        return None if canary is None else canary.comparison_id

    async def sync(self) -> None:
        """Make the worker's canary the one that runs, if any."""
        wanted, present = await comparisons.running_canary(self._database), self._state.canary
        if present is not None and (wanted is None or wanted.id != present.comparison_id):
            await self._drop(present)
        if wanted is None:
            self._state.canary_fault = self._refused = None
        elif self._state.bundle is not None and self._is_new(wanted):
            await self._try(wanted)

    def _is_new(self, wanted: Comparison) -> bool:
        present, refused = self._state.canary, self._refused
        waits = refused is not None and refused[0] == wanted.id
        if waits and refused is not None and time.monotonic() < refused[1] + _LOAD_AGAIN_S:
            return False
        return present is None or present.comparison_id != wanted.id

    async def _drop(self, present: Canary) -> None:
        """Answer with the incumbent alone; what was promoted stays until the swap takes it over."""
        serving = await snapshots.serving(self._database)
        bundle, held = self._state.bundle, present.bundle.snapshot_id
        is_promoted = serving is not None and serving.snapshot_id == held
        if is_promoted and bundle is not None and bundle.snapshot_id != held:
            return
        async with self._loading.turn:
            if self._state.canary is present:
                self._state.canary = None
        metrics.SNAPSHOT_LOADED_AT.labels("canary").set(0)
        _log.info("canary_dropped", snapshot_id=str(held), comparison_id=present.comparison_id)
        await self._loading.beat()

    async def _try(self, wanted: Comparison) -> None:
        try:
            await self._take_up(wanted)
        except (ModelError, StoreUnavailable) as error:
            self._refused = (wanted.id, time.monotonic())
            self._state.canary_fault = (
                f"the canary {wanted.snapshot_id} runs but this worker does not answer with it:"
                f" {error}"
            )
            metrics.SNAPSHOT_FAULTS.inc()
            _log.error("canary_refused", snapshot_id=str(wanted.snapshot_id), error=str(error))

    async def _take_up(self, wanted: Comparison) -> None:
        loaded = await self._loading.load(wanted.snapshot_id, self._state.bundle)
        # Said before the last look: an end that did not wait for this worker is in that look.
        self._is_changing = True
        try:
            await self._loading.beat()
            running = await comparisons.running_canary(self._database)
            if running is not None and running.id == wanted.id:
                await self._answer_with(wanted, loaded)
        finally:
            self._is_changing = False
        await self._loading.beat()

    async def _answer_with(self, wanted: Comparison, loaded: Bundle) -> None:
        async with self._loading.turn:
            bundle = await self._loading.caught_up(loaded)
            self._state.canary = Canary(wanted.id, wanted.share or 0.0, bundle)
        self._state.canary_fault = self._refused = None
        metrics.SNAPSHOT_LOADED_AT.labels("canary").set(made_ms(wanted.snapshot_id) / 1000)
        _log.info("canary_answering", snapshot_id=str(wanted.snapshot_id), share=wanted.share)
