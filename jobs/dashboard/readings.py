"""What the pages show: read in the background, once for all browsers, every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import httpx
import structlog

from app.storage import (
    audit,
    comparisons,
    job_runs,
    keys,
    lag,
    quarantine,
    serving_history,
    snapshots,
    workers,
)
from app.storage.audit import AuditRow
from app.storage.comparisons import Comparison
from app.storage.engine import Database
from app.storage.errors import StorageError
from app.storage.job_runs import Run
from app.storage.lag import Lag
from app.storage.quarantine import Quarantined
from app.storage.serving_history import Period
from app.storage.snapshots import Promotion, Serving, StoredSnapshot
from app.storage.statistics import HOUR_MS, Performance, PerformanceQuery, performance
from app.storage.workers import Worker
from jobs.dashboard.measured import History, parsed
from jobs.dashboard.sessions import Sessions

SNAPSHOTS = 200
RUNS = 100
CHANGES = 60
_EVERY_S = 2.0
_SELDOM = 5
_HOURS = 47
_TIMEOUT_S = 3.0
_log = structlog.get_logger("dashboard")


@dataclass(frozen=True, slots=True)
class Picture:
    """A deployment at one moment; lists have the newest first.

    `at_s`: when it was read (seconds since 1970); `names`: of API keys, by what the audit calls
    them; `hours`: statistics of the last two days, the oldest hour first; `faults`: what could not
    be read, as sentences with a remedy.
    """

    at_s: float = 0.0
    serving: Serving | None = None
    snapshots: Sequence[StoredSnapshot] = ()
    promotions: Sequence[Promotion] = ()
    runs: Sequence[Run] = ()
    changes: Sequence[AuditRow] = ()
    workers: Sequence[Worker] = ()
    comparisons: Sequence[Comparison] = ()
    history: Sequence[Period] = ()
    quarantined: Sequence[Quarantined] = ()
    hours: Performance = field(default_factory=lambda: Performance([], None))
    lag: Lag = field(default_factory=lambda: Lag(None, None))
    names: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    def snapshot(self, snapshot_id: UUID) -> StoredSnapshot | None:
        """One of the snapshots."""
        return next((one for one in self.snapshots if one.manifest.id == snapshot_id), None)

    @property
    def served(self) -> StoredSnapshot | None:
        """The snapshot that is served."""
        return None if self.serving is None else self.snapshot(self.serving.snapshot_id)

    def who(self, actor: str) -> str:
        """An actor by the name of its key, where it is one."""
        return self.names.get(actor, actor)


class Readings:
    """Keeps `picture` and `history` up to date while `follow` runs."""

    def __init__(self, database: Database, sessions: Sessions, metrics: Sequence[str]) -> None:
        self.database, self._sessions, self._metrics = database, sessions, metrics
        self.picture, self.history = Picture(), History()
        self._rounds = 0
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False)

    async def follow(self) -> None:
        """Read again and again until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.refresh()
            except Exception as error:
                # Nobody foresaw it: the pages say so, and go on being read.
                _log.error("reading_failed", exc_info=error)
                told = (
                    f"Reading failed ({type(error).__name__}); the dashboard's log has the cause."
                )
                self.picture = replace(self.picture, faults={"reading": told})

    async def refresh(self) -> None:
        """Read everything once; what cannot be read keeps its last value and becomes a fault."""
        faults: dict[str, str] = {}
        try:
            read = await self._read()
            await self._end_sessions()
            self.picture = replace(self.picture, at_s=time.time(), **read)
        except StorageError as error:
            faults["database"] = (
                f"The database does not answer ({error}). What you see is of the last time it did."
                " Start it (`adscent db`), or correct DATABASE_URL and start the dashboard anew."
            )
        faults |= await self._sample()
        self.picture = replace(self.picture, faults=faults)
        self._rounds += 1

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "serving": await snapshots.serving(self.database),
            "snapshots": await self._snapshots(),
            "promotions": await snapshots.list_promotions(self.database, SNAPSHOTS),
            "runs": await job_runs.list_runs(self.database, RUNS),
            "changes": await audit.list_audit(self.database, CHANGES),
            "workers": await workers.live(self.database),
            "history": await serving_history.between(self.database, limit=CHANGES),
            "lag": await lag.lag(self.database),
        }
        ids = [one.manifest.id for one in found["snapshots"]]
        found["comparisons"] = await comparisons.of_snapshots(self.database, ids)
        if self._rounds % _SELDOM == 0:
            found["quarantined"] = await quarantine.counts(self.database)
            found["hours"] = await performance(self.database, _last_hours())
        return found

    async def _snapshots(self) -> Sequence[StoredSnapshot]:
        """All of them now and then, since they expire; otherwise only what is new."""
        known = self.picture.snapshots
        if not known or self._rounds % (6 * _SELDOM) == 0:
            return await snapshots.list_snapshots(self.database, SNAPSHOTS)
        newest = await snapshots.list_snapshots(self.database, 3)
        new = [one for one in newest if one.manifest.id > known[0].manifest.id]
        if len(new) == len(newest):
            return await snapshots.list_snapshots(self.database, SNAPSHOTS)
        return (*new, *known)[:SNAPSHOTS] if new else known

    async def _end_sessions(self) -> None:
        """A key's sessions end with it, revoked or expired; every key gives its actor a name."""
        live = await keys.live_api_keys(self.database)
        self._sessions.keep({key.id for key in live})
        known = await keys.list_api_keys(self.database)
        names = {f"key:{key.id}": key.name for key in known}
        self.picture = replace(self.picture, names=names)

    async def _sample(self) -> dict[str, str]:
        """Add a sample of what answers; a sentence for what does not."""
        answers = await asyncio.gather(*(self._scraped(url) for url in self._metrics))
        texts = [text for text in answers if text is not None]
        if texts:
            self.history.add(parsed(texts, time.time()))
        silent = [url for url, text in zip(self._metrics, answers, strict=True) if text is None]
        if not silent:
            return {}
        return {
            "metrics": f"No metrics from {', '.join(silent)}: rates and latencies are missing."
            " Start `adscent serve` and `adscent jobs`, or set ADSCENT_DASHBOARD_METRICS to the"
            " addresses of their metrics, with commas between."
        }

    async def _scraped(self, url: str) -> str | None:
        try:
            answer = await self._client.get(url)
        except httpx.HTTPError:
            return None
        return answer.text if answer.is_success else None


def _last_hours() -> PerformanceQuery:
    now_ms = time.time_ns() // 1_000_000
    first_ms = now_ms // HOUR_MS * HOUR_MS - _HOURS * HOUR_MS
    return PerformanceQuery(first_ms, now_ms + HOUR_MS, group_by=("hour",))
