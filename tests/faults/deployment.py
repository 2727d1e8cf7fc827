"""A whole deployment of real processes: `adscent db`, `adscent serve` and `adscent jobs`.

The database is as durable as PostgreSQL ships it. Each process is started again by hand of the
test where a service manager would: the product itself starts nothing but its own children.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from app.storage import keys, partitions
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.errors import DatabaseUnavailable
from app.storage.processes import free_ports, send, sitting_in
from jobs.bench.stored_catalog import store as store_catalog
from jobs.bench.stored_events import store as store_events
from jobs.market import Market
from jobs.market.traffic import batch
from models.schema import load_schema
from tests.faults.database import Background, Look
from tests.faults.namespaces import Namespace, mounted
from tests.faults.processes import PATIENCE_S, Part, wait_for, workers_of
from tests.faults.traffic import Ledger, Visitors

WORKERS = 2
WINDOW_S = 1.0
"""The attribution window: an impression is trained that long after its transaction ended."""
RETRAIN_EVERY_S = 2.0
_HOUR_MS = 3_600_000
_ADS = 200
_TOP = Path(__file__).resolve().parents[2]
_FEATURES = _TOP / "features.toml"


@dataclass
class Deployment:
    """The processes, a way to look into the database, and what the visitors were told."""

    home: Path
    database: Part
    serve: Part
    jobs: Part
    look: Look
    background: Background
    port: int
    secret: str
    jobs_metrics_port: int
    ledger: Ledger = field(default_factory=Ledger)
    bulk_impressions: int = 0
    bulk_events: int = 0
    has_failed: bool = False
    store_seen: Path | None = None

    @property
    def store(self) -> Path:
        """The snapshot store, as it is seen from here."""
        return self.store_seen or self.home / "snapshots"

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder."""
        return EmbeddedPostgres(self.home).folder / "data"

    def postgres(self) -> int:
        """The process id of PostgreSQL's main process."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def workers(self) -> list[int]:
        """The process ids of the serving workers."""
        return workers_of(self.serve.pid)

    def call(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request on a connection of its own, so that any worker may take it."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, headers=headers, timeout=20, **given)

    def readiness(self) -> dict[str, Any]:
        """What some worker says of itself; empty when none answers."""
        try:
            found: dict[str, Any] = self.call("GET", "/readyz").json()
        except httpx.TransportError:
            return {}
        return found

    def ready_workers(self) -> int:
        """How many of the workers that run now have reported a snapshot that they serve."""
        rows = self.look.fetch(
            "SELECT pid FROM workers WHERE snapshot_id IS NOT NULL"
            " AND snapshot_id <> '00000000-0000-0000-0000-000000000000'"
            " AND seen_at > clock_timestamp() - interval '3 seconds'"
        )
        return len({row["pid"] for row in rows} & set(self.workers()))

    @contextmanager
    def database_within(self, *commands: str) -> Iterator[Namespace]:
        """The stopped database started in a mount namespace made by shell commands.

        It ends with the namespace, and so do the processes that use it.
        """
        with mounted(*commands) as space:
            self.database.prefix = space.prefix
            self.database.start()
            url_of(self.home, self.database)
            self.wait_until_served()
            try:
                yield space
            finally:
                self.serve.stop()
                self.jobs.stop()
                self.database.stop()

    def wait_until_served(self) -> float:
        """Seconds until all workers were ready."""
        return wait_for(lambda: self.ready_workers() == WORKERS, "all workers ready")

    def wait_until_trained(self) -> float:
        """Seconds until a training run has ended well that began after now."""
        since = self.look.value("SELECT clock_timestamp()")
        query = "SELECT count(*) FROM retrain_runs WHERE state = 'accepted' AND started_at > $1"
        return wait_for(lambda: self.look.value(query, since), "a training run")

    @contextmanager
    def visited(self) -> Iterator[Visitors]:
        """Visitors meanwhile; at the end all their events have been acknowledged."""
        visitors = Visitors(self.port, self.secret, self.ledger, seed=len(self.ledger.answers))
        running = asyncio.run_coroutine_threadsafe(visitors.run(), self.background.loop)
        try:
            yield visitors
        finally:
            self.background.loop.call_soon_threadsafe(visitors.stop)
            try:
                running.result(PATIENCE_S)
            except TimeoutError:
                running.cancel()
                raise

    def ingest(self, count: int) -> None:
        """Store `count` impressions of a market and their clicks, as ingestion writes them."""
        self.background.run(self._ingest(count))

    async def _ingest(self, count: int) -> None:
        # Twice as many over two hours of which one is over: the first half is of the past.
        now_ms = time.time_ns() // 1_000_000
        market = _market(now_ms)
        drawn = batch(market, 2 * count + 1000, load_schema(_FEATURES), self.bulk_events)
        part = drawn.rows(0, count)
        assert int(part.time_ms[-1]) < now_ms
        database = Database(self.look.url, pool=1)
        await _reached(database)
        await store_events(database, part, uuid4(), seed=1 + self.bulk_events)
        await database.close()
        self.bulk_impressions += count
        self.bulk_events += count + int(part.label.sum())

    def freeze_database(self, number: signal.Signals) -> None:
        """Send SIGSTOP or SIGCONT to every process of PostgreSQL."""
        for _ in range(2):  # one may have been born while the others were told
            for pid in sitting_in(self.data):
                send(pid, number)


@contextmanager
def deployed(
    home: Path, settings: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[Deployment]:
    """Start everything over a seeded market; remove everything at the end.

    `settings`: environment variables beside the usual ones; `prefix`: what runs serve and jobs.
    """
    with ExitStack() as stack:
        background = Background()
        stack.callback(background.close)
        ports = free_ports(3)
        environment = environment_of(home, ports) | (settings or {})
        parts = [
            Part([name], environment, home / f"{name}.log") for name in ("db", "serve", "jobs")
        ]
        database, serve, jobs_part = parts
        stack.callback(lambda: remove(home))
        stack.callback(database.stop)
        database.start()
        url = url_of(home, database)
        look = Look(background, url)
        stack.callback(look.close)
        secret = background.run(_filled(url))
        for part in (jobs_part, serve):
            part.prefix = prefix
            stack.callback(part.stop)
            part.start()
        found = Deployment(
            home, database, serve, jobs_part, look, background, ports[0], secret, ports[2]
        )
        stack.callback(lambda: found.jobs.stop())  # by then it may be another one
        found.wait_until_served()
        yield found


def url_of(home: Path, database: Part) -> str:
    """The URL of the embedded database, once it is ready."""

    def ready() -> str | None:
        assert database.is_running, database.words()
        return EmbeddedPostgres.url_of(home)

    wait_for(ready, "the database")
    url = EmbeddedPostgres.url_of(home)
    assert url is not None
    return url


def environment_of(home: Path, ports: list[int]) -> dict[str, str]:
    """What the processes of a deployment are given: quick clocks, everything else as shipped."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ADSCENT_", "DATABASE_"))}
    settings = {
        "HOME": home,
        "FEATURES": _FEATURES,
        "PORT": ports[0],
        "METRICS_PORT": ports[1],
        "JOBS_METRICS_PORT": ports[2],
        "WORKERS": WORKERS,
        "RETRAIN_EVERY_S": RETRAIN_EVERY_S,
        "HORIZON_EVERY_S": 0.5,
        "STATISTICS_EVERY_S": 1,
        "ATTRIBUTION_WINDOW_S": WINDOW_S,
        "SNAPSHOTS_KEPT": 1000,
        "DEADLINE_S": 15,  # on a busy machine a request may wait long; shedding is another test
    }
    own = {f"ADSCENT_{name}": str(value) for name, value in settings.items()}
    # Entering a namespace changes the working folder.
    paths = {"PYTHONPATH": str(_TOP), "PYTHONSAFEPATH": "1"}
    return inherited | own | paths | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def remove(home: Path) -> None:
    """Remove a home and, for root, its data folder elsewhere."""
    shutil.rmtree(EmbeddedPostgres(home).folder, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _market(now_ms: int) -> Market:
    return Market(1, _ADS, start_ms=now_ms - _HOUR_MS, days=2.0, day_ms=_HOUR_MS)


async def _reached(database: Database) -> None:
    """Return once the database answers: on a busy machine the first attempt may be too late."""
    for _ in range(5):
        try:
            return await database.ping()
        except DatabaseUnavailable:
            continue
    return await database.ping()


async def _filled(url: str) -> str:
    """Store the market's catalog; the secret of a key that is good for everything."""
    now_ms = time.time_ns() // 1_000_000
    database = Database(url, pool=1)
    await _reached(database)
    await store_catalog(database, *_market(now_ms).catalog())
    await partitions.ensure_partitions(database, now_ms)
    _, secret = await keys.create_api_key(database, "faults", ["score", "ingest", "admin"], now_ms)
    await database.close()
    return secret
