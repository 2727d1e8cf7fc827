"""Never a paused ad after its acknowledgement: random changes, swaps and deaths on real processes.

Two servers of two workers each share a database. A seeded schedule pauses, resumes and bids,
promotes and rolls back, kills workers and ends listening sessions, through either server; visitors
of both look at every decision that began after a pause was confirmed by all workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest

from app.settings import Settings
from app.storage import workers
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.processes import free_port
from jobs.bench.visitors import Visitors
from tests.contract.conftest import fill_catalog, promote_genesis, secrets_of, write_features
from tests.contract.trained import trained

pytestmark = pytest.mark.anyio
_SERVE = (sys.executable, "-c", "from app.cli.main import main; main()", "serve")
_TOP = Path(__file__).resolve().parents[2]
_BODY = json.dumps({"user": {"geo": "us"}, "slots": 10, "per_advertiser": 50})
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query ILIKE 'listen %'
"""
_LONGEST_S, _PAUSES = 60.0, 15
_ADS = range(1, 11)


@dataclass
class Market:
    """Both servers, who visits them, and what the schedule has done so far."""

    database: Database
    admin: httpx.AsyncClient
    visitors: list[Visitors]
    ports: list[int]
    snapshots: list[UUID]
    random: random.Random
    done: dict[str, int] = field(default_factory=dict)
    unconfirmed: int = 0

    def has_seen_enough(self) -> bool:
        """Whether everything happened, and often enough to mean something."""
        return (
            self.done.get("pause", 0) >= _PAUSES
            and {"kill", "cut", "promote", "rollback", "resume", "bid"} <= self.done.keys()
        )

    async def call(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        """One call to either server; None where its worker died meanwhile."""
        url = f"http://127.0.0.1:{self.random.choice(self.ports)}{path}"
        try:
            return await self.admin.request(method, url, json=body)
        except httpx.TransportError:
            return None

    async def change(self, ad_id: int) -> None:
        """A change of one ad; who is paused and confirmed is held from here on."""
        bid = self.random.randint(1, 10**6)
        action = self.random.choice(("pause", "pause", "resume", "bid"))
        if action == "resume":
            for one in self.visitors:
                one.release(ad_id)
        body = {"pause": {"state": "paused"}, "resume": {"state": "active"}}.get(action)
        answer = await self.call("PATCH", f"/v1/ads/{ad_id}", body or {"bid_micros": bid})
        if action == "pause" and answer is not None and answer.status_code == 200:
            for one in self.visitors:
                one.hold(ad_id)
        self.unconfirmed += answer is None or answer.status_code != 200
        self.done[action] = self.done.get(action, 0) + 1

    async def disturb(self) -> None:
        """A promotion, a rollback, the death of a worker, or an end of all listening."""
        action = self.random.choice(("promote", "rollback", "kill", "cut", "promote"))
        if action == "promote":
            await self.call("POST", f"/v1/snapshots/{self.random.choice(self.snapshots)}/promote")
        elif action == "rollback":
            await self.call("POST", "/v1/snapshots/rollback")
        elif action == "kill":
            serving = [one for one in await workers.look(self.database) if one.snapshot_id]
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(self.random.choice(serving).pid, signal.SIGKILL)
        else:
            async with self.database.session() as connection:
                await connection.execute(_CUT)
        self.done[action] = self.done.get(action, 0) + 1


@asynccontextmanager
async def _served(settings: Settings, port: int) -> AsyncIterator[None]:
    """`adscent serve` with two workers."""
    given = {
        "DATABASE_URL": settings.database_url,
        "ADSCENT_HOME": settings.home,
        "ADSCENT_FEATURES": settings.features,
        "ADSCENT_PORT": port,
        "ADSCENT_METRICS_PORT": free_port(),
        "ADSCENT_WORKERS": 2,
        "ADSCENT_DATABASE_POOL": 3,
        "ADSCENT_DEADLINE_S": 30,
        "ADSCENT_ACKNOWLEDGE_TIMEOUT_S": 5,
        "ADSCENT_EXPLORATION_SHARE": 0,
        "ADSCENT_LOG_LEVEL": "error",
    }
    environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
    process = await asyncio.create_subprocess_exec(*_SERVE, cwd=_TOP, env=environment)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture(params=[20261122])
async def market(
    request: pytest.FixtureRequest, database: Database, database_url: str, tmp_path: Path
) -> AsyncIterator[Market]:
    """Both servers with all workers serving, and three snapshots to choose from."""
    settings = Settings(home=tmp_path, features=write_features(tmp_path), database_url=database_url)
    await fill_catalog(Catalog(database))
    secrets = await secrets_of(database)
    await promote_genesis(database, settings, Catalog(database))
    api = SimpleNamespace(database=database, settings=settings)
    snapshots = [await trained(api) for _ in range(3)]  # type: ignore[arg-type]  # it needs these
    ports = [free_port(), free_port()]
    visitors = [Visitors(port, secrets["score"], [_BODY]) for port in ports]
    async with AsyncExitStack() as stack:
        for port in ports:
            await stack.enter_async_context(_served(settings, port))
        async with asyncio.timeout(90):
            while await _serving(database) < 4:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.1)
        admin = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {secrets['admin']}"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=20,
        )
        await stack.enter_async_context(admin)
        chance = random.Random(request.param)  # noqa: S311 - to be repeated
        yield Market(database, admin, visitors, ports, snapshots, chance)


async def _serving(database: Database) -> int:
    return sum(one.snapshot_id is not None for one in await workers.look(database))


async def test_no_paused_ad_after_its_acknowledgement(market: Market) -> None:
    """Whatever happens to the workers, what was confirmed holds on all of them."""
    over = asyncio.Event()

    async def change(ads: list[int]) -> None:
        while not over.is_set():
            await market.change(market.random.choice(ads))
            await asyncio.sleep(market.random.uniform(0, 0.05))

    async def disturb() -> None:
        while not over.is_set():
            await asyncio.sleep(market.random.uniform(0.3, 1.2))
            await market.disturb()

    async with AsyncExitStack() as stack:
        seen = [await stack.enter_async_context(one.coming(4, 60)) for one in market.visitors]
        # One changer an ad at a time: what is held is then what was last confirmed.
        acting = [asyncio.create_task(change(list(_ADS)[part::2])) for part in range(2)]
        acting.append(asyncio.create_task(disturb()))
        async with asyncio.timeout(_LONGEST_S):
            while not market.has_seen_enough():  # noqa: ASYNC110 - of several tasks
                await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*acting)
    assert [one for looked in seen for one in looked.broken] == []
    assert sum(looked.decisions for looked in seen) > 100
    changed = sum(market.done[action] for action in ("pause", "resume", "bid"))
    assert market.unconfirmed < changed / 2, market.done
