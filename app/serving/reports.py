"""What workers say they have applied, as the database passes it on to everybody who listens."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Applied:
    """The catalog version that holds in a worker, and the snapshot that it serves.

    `canary_id`: the comparison of the canary that it answers with too, 0 while it changes.
    """

    catalog_version: int
    snapshot_id: UUID | None
    canary_id: int | None = None


class Reports:
    """The newest report of each worker; whoever waits for reports is woken by each."""

    def __init__(self) -> None:
        self._newest: dict[UUID, Applied] = {}
        self._heard = asyncio.Event()

    def hear(self, worker_id: UUID, applied: Applied) -> None:
        """Note a report. They come in the order in which the worker made them."""
        self._newest[worker_id] = applied
        self._heard.set()
        self._heard = asyncio.Event()

    def of(self, worker_id: UUID) -> Applied | None:
        """The newest report of a worker that was heard."""
        return self._newest.get(worker_id)

    def keep(self, workers: Collection[UUID]) -> None:
        """Forget all workers but these."""
        for worker_id in [one for one in self._newest if one not in workers]:
            del self._newest[worker_id]

    async def next(self, timeout_s: float) -> None:
        """Wait for a report, but not for longer than so many seconds."""
        heard = self._heard
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await heard.wait()
