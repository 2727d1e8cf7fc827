"""A whole deployment for one run: database, catalog, keys, `adscent serve` and `adscent jobs`."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from app.settings import Settings
from app.storage import keys, migrate, workers
from app.storage.catalog import Catalog
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database, farewell
from app.storage.processes import free_ports
from app.storage.workers import Worker
from jobs.demo.children import Child
from jobs.demo.errors import PartEnded, StartFailed
from jobs.demo.world import ATTRIBUTION_WINDOW_S, FEATURES, HORIZON_EVERY_S, RETRAIN_EVERY_S, ROOT
from jobs.market import Market

WORKERS = 2
_DATABASE = "adscent_demo"
_LOCK = 0x41445343_44454D4F  # "ADSCDEMO": one demo at a time in one PostgreSQL
_READY_S = 120.0
_ACTOR = "demo"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs, and the keys to it.

    `visitors_key` is good for decisions and events, `admin_key` for scores and administration;
    `actor`: what the history calls whoever acts with the latter.
    """

    home: Path
    database: Database
    port: int
    visitors_key: str
    admin_key: str
    environment: dict[str, str]
    parts: list[Child]
    actor: str

    @property
    def api(self) -> str:
        """Where `adscent serve` answers."""
        return f"http://127.0.0.1:{self.port}"

    async def workers(self) -> list[Worker]:
        """The serving processes that are alive, with what each of them has applied."""
        return list(await workers.live(self.database))

    def check(self) -> None:
        """Raise `PartEnded` when one of the processes has ended."""
        for part in self.parts:
            part.check()


Tell = Callable[[str], None]


@asynccontextmanager
async def deployed(settings: Settings, market: Market, tell: Tell) -> AsyncIterator[Deployment]:
    """Start everything, ready for the first request; `tell` gets a sentence for each step.

    Everything of the last run is dropped first. Raises `StartFailed` and errors of `app.storage`.
    """
    async with AsyncExitStack() as stack:
        home = _clean_home(stack, settings.home.resolve() / "demo")
        given = settings.database_url or _embedded(stack, home, tell)
        url = await _fresh_database(stack, given, tell)
        database = Database(url, pool=3)
        stack.push_async_callback(database.close)
        await _fill(database, market, tell)
        deployment = await _deployment(home, database, url)
        stack.push_async_callback(_stop, deployment.parts)
        await _start(deployment, tell)
        yield deployment


def _clean_home(stack: AsyncExitStack, home: Path) -> Path:
    """The database's folder stays, so that the next start is quick; the rest begins anew.

    The lock is the kernel's, so a demo that was killed does not keep it.
    """
    home.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((home / "lock").open("ab"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartFailed(
            f"another demo runs in {home}; stop it, or set ADSCENT_HOME to another folder"
        ) from None
    for name in ("snapshots", "logs"):
        shutil.rmtree(home / name, ignore_errors=True)
    (home / "logs").mkdir()
    return home


def _embedded(stack: AsyncExitStack, home: Path, tell: Tell) -> str:
    tell(f"Starting a PostgreSQL of our own in {home}.")
    return stack.enter_context(EmbeddedPostgres(home)).url


async def _fresh_database(stack: AsyncExitStack, url: str, tell: Tell) -> str:
    """A new database beside the one of `url`, which is not touched."""
    server = Database(url, pool=1)
    stack.push_async_callback(server.close)
    # Not `server.session`: that takes the errors of the whole run for errors of the database.
    session = await server.raw(command_timeout=None)
    stack.push_async_callback(farewell, session)
    if not await session.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        raise StartFailed("another demo uses this PostgreSQL; stop it first")
    try:
        await session.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        await session.execute(f"CREATE DATABASE {_DATABASE} ENCODING 'UTF8' TEMPLATE template0")
    except Exception as error:
        raise StartFailed(
            f"the database {_DATABASE} cannot be made ({error}): the user of DATABASE_URL needs"
            " the right to create databases; or unset DATABASE_URL"
        ) from error
    tell(f"Every run begins with nothing: database {_DATABASE} dropped and created.")
    fresh = urlunsplit(urlsplit(url)._replace(path=f"/{_DATABASE}"))
    await migrate.upgrade(fresh)
    return fresh


async def _fill(database: Database, market: Market, tell: Tell) -> None:
    advertisers, campaigns, ads = market.catalog()
    await Catalog(database).import_catalog(advertisers, campaigns, ads, _ACTOR)
    tell(
        f"Market loaded: {len(ads):,} ads in {len(campaigns):,} campaigns of"
        f" {len(advertisers):,} advertisers."
    )


async def _deployment(home: Path, database: Database, url: str) -> Deployment:
    now_ms = time.time_ns() // 1_000_000
    visitors = await keys.create_api_key(database, "visitors", ["score", "ingest"], now_ms, _ACTOR)
    admin = await keys.create_api_key(database, "stage", ["score", "admin"], now_ms, _ACTOR)
    ports = free_ports(3)
    environment = _environment(home, url, ports)
    return Deployment(
        home, database, ports[0], visitors[1], admin[1], environment, [], f"key:{admin[0]}"
    )


def _environment(home: Path, url: str, ports: list[int]) -> dict[str, str]:
    """The environment of the children: ours, with the settings of the demo's quick clock."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ADSCENT_")}
    settings = {
        "HOME": home,
        "FEATURES": FEATURES,
        "HOST": "127.0.0.1",
        "PORT": ports[0],
        "METRICS_PORT": ports[1],
        "JOBS_METRICS_PORT": ports[2],
        "WORKERS": WORKERS,
        "RETRAIN_EVERY_S": RETRAIN_EVERY_S,
        "HORIZON_EVERY_S": HORIZON_EVERY_S,
        "ATTRIBUTION_WINDOW_S": ATTRIBUTION_WINDOW_S,
        "ACKNOWLEDGE_TIMEOUT_S": 5,
        "DEADLINE_S": 10,
        "SNAPSHOTS_KEPT": 1000,
    }
    own = {f"ADSCENT_{name}": str(value) for name, value in settings.items()}
    fixed = {"DATABASE_URL": url, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    return inherited | own | fixed | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


async def _start(deployment: Deployment, tell: Tell) -> None:
    tell(f"Starting `adscent serve` with {WORKERS} workers and `adscent jobs`.")
    for name, command in (("adscent serve", "serve"), ("adscent jobs", "jobs")):
        log = deployment.home / "logs" / f"{command}.log"
        arguments = ["-m", "app.cli.main", command]
        child = await Child.start(name, arguments, deployment.environment, log)
        deployment.parts.append(child)
    deadline = time.monotonic() + _READY_S
    while not await _is_ready(deployment):
        if time.monotonic() > deadline:
            words = " / ".join(part.last_words() for part in deployment.parts)
            raise StartFailed(f"not ready after {_READY_S:.0f} s: {words}")
        await asyncio.sleep(0.05)


async def _is_ready(deployment: Deployment) -> bool:
    """Whether every worker has a warm model: a request may meet any of them."""
    try:
        deployment.check()
    except PartEnded as error:
        raise StartFailed(str(error)) from error
    warm = [worker for worker in await deployment.workers() if worker.snapshot_id is not None]
    return len(warm) >= WORKERS


async def _stop(parts: list[Child]) -> None:
    await asyncio.gather(*(part.stop() for part in parts))
