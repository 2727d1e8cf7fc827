"""Keeps what one worker holds free of erased values, and reports how far it has come."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import structlog

from app.serving import targeting
from app.serving.bundle import Bundle
from app.serving.state import WorkerState
from app.storage import erasures
from app.storage.engine import Database
from models.erasure import NOTHING, Erased
from models.features import Encoder

_log = structlog.get_logger(__name__)


class ErasureFollower:
    """Follows the erasures. Every bundle has to go through `fit` before it answers.

    `turn` is held where bundles are replaced; `is_read` says that all earlier erasures are known.
    """

    def __init__(
        self, database: Database, state: WorkerState, encoder: Encoder, turn: asyncio.Lock
    ) -> None:
        self._database, self._state, self._encoder = database, state, encoder
        self._erased, self._turn = NOTHING, turn
        self.is_read = False

    async def sync(self, worker_id: UUID) -> None:
        """Apply what was erased since the last call; then tell that this worker has."""
        found = await erasures.read(self._database, self._erased)
        if found is not self._erased:
            await self._apply(found)
        self.is_read = True
        await erasures.applied(self._database, worker_id, found.version)

    async def fit(self, bundle: Bundle) -> Bundle:
        """The bundle without erased values; the very same where it has none already."""
        if bundle.encoder is self._encoder:
            return bundle
        return await asyncio.to_thread(bundle.without, self._erased, self._encoder)

    async def _apply(self, found: Erased) -> None:
        async with self._turn:
            self._erased = found
            self._encoder = Encoder(self._encoder.schema, found.missing)
            bundle, canary = self._state.bundle, self._state.canary
            if canary is not None:
                canary = replace(canary, bundle=await self.fit(canary.bundle))
            if bundle is not None:
                bundle = await self.fit(bundle)
            self._state.bundle, self._state.canary = bundle, canary
        targeting.forget_texts()
        self._forget_queries(found)
        _log.info("erasures_applied", version=found.version, erased=len(found.missing))

    def _forget_queries(self, found: Erased) -> None:
        """Recent queries warm the next snapshot; one with an erased value is not kept for that."""
        recorded, encoder = self._state.recorded, Encoder(self._encoder.schema)
        kept = [
            query
            for query in recorded
            if found.missing.keys().isdisjoint(encoder.user_hashes(query.user)[0])
        ]
        recorded.clear()
        recorded.extend(kept)
