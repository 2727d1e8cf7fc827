"""`adscent serve` under load: new workers on SIGHUP, an orderly end on SIGTERM, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.storage import partitions, workers
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.processes import free_port
from jobs.bench.visitors import Visitors
from tests.contract.conftest import (
    fill_catalog,
    now_ms,
    promote_genesis,
    secrets_of,
    write_features,
)

pytestmark = pytest.mark.anyio
_SERVE = [sys.executable, "-c", "from app.cli.main import main; main()", "serve"]
_TOP = Path(__file__).resolve().parents[2]
_IN_A_ROW = 20
"""So many connections reach both of two workers."""
_BODY = json.dumps({"user": {"geo": "us"}, "slots": 5, "per_advertiser": 50})


@dataclass
class Server:
    """A running `adscent serve` with two workers and a file of settings."""

    process: subprocess.Popen[bytes]
    database: Database
    url: str
    port: int
    settings: Path
    secrets: dict[str, str]

    async def pids(self) -> set[int]:
        """The workers that have entered themselves."""
        found = await workers.live(self.database)
        return {worker.pid for worker in found if worker.snapshot_id is not None}

    async def until(self, pids: int, without: set[int] = frozenset()) -> set[int]:  # type: ignore[assignment]
        """Wait until so many workers serve, none of them one of those."""
        async with asyncio.timeout(60):
            while True:
                found = await self.pids()
                if len(found) == pids and not found & without:
                    return found
                await asyncio.sleep(0.05)

    async def until_ready(self) -> None:
        """Wait until both may decide: a worker's report stands in the database before the worker
        knows that it was taken."""
        ready = 0
        async with asyncio.timeout(60):
            while ready < _IN_A_ROW:
                answer = await self.call("score", "GET", "/readyz")
                ready = ready + 1 if answer.status_code == 200 else 0

    async def call(self, scope: str, *call: str, **given: Any) -> httpx.Response:
        """One request."""
        headers = {"Authorization": f"Bearer {self.secrets[scope]}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as client:
            return await client.request(*call, **given)


@pytest.fixture
async def server(database: Database, database_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    """Two workers, both serving."""
    settings = Settings(home=tmp_path, features=write_features(tmp_path), database_url=database_url)
    catalog = Catalog(database)
    await fill_catalog(catalog)
    secrets = await secrets_of(database)
    await promote_genesis(database, settings, catalog)
    await partitions.ensure_partitions(database, now_ms())
    port, file = free_port(), tmp_path / "adscent.env"
    given = {
        "ADSCENT_HOME": tmp_path,
        "ADSCENT_FEATURES": settings.features,
        "ADSCENT_PORT": port,
        "ADSCENT_METRICS_PORT": free_port(),
        "ADSCENT_WORKERS": 2,
        "ADSCENT_DEADLINE_S": 30,
        "ADSCENT_EXPLORATION_SHARE": 0,
        "ADSCENT_LOG_LEVEL": "warning",
    }
    environment = {**os.environ, "DATABASE_URL": database_url}
    environment |= {name: str(value) for name, value in given.items()}
    file.write_text("# nothing yet\n")
    command = [*_SERVE, "--env-file", str(file)]
    process = subprocess.Popen(command, cwd=_TOP, env=environment)  # noqa: ASYNC220, S603 - ours
    found = Server(process, database, f"http://127.0.0.1:{port}", port, file, secrets)
    try:
        await found.until(2)
        await found.until_ready()
        yield found
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)
        shutil.rmtree(tmp_path / "snapshots", ignore_errors=True)


async def test_restart_under_load_loses_no_request(server: Server) -> None:
    """SIGHUP puts new workers in the place of both, and each of some thousand requests of
    keep-alive clients is answered with 200 meanwhile."""
    before = await server.until(2)
    visitors = Visitors(server.port, server.secrets["score"], [_BODY])
    async with visitors.coming(connections=8, rate=150) as seen:
        await asyncio.sleep(1.0)
        server.process.send_signal(signal.SIGHUP)
        await server.until(2, without=before)
        await asyncio.sleep(1.5)
    assert (seen.failures, seen.refused) == ([], [])
    assert seen.decisions > 300


async def test_restart_brings_new_settings(server: Server) -> None:
    """What the file of settings says at SIGHUP is what the new workers do."""
    asked = {"user": {}, "slots": 50}
    first = (await server.call("score", "POST", "/v1/decisions", json=asked)).json()
    assert len(first["ads"]) == 1
    before = await server.until(2)
    server.settings.write_text("ADSCENT_PER_ADVERTISER=4\n")
    server.process.send_signal(signal.SIGHUP)
    await server.until(2, without=before)
    second = (await server.call("score", "POST", "/v1/decisions", json=asked)).json()
    assert len(second["ads"]) == 4


async def test_restart_with_faulty_settings_keeps_the_workers(server: Server) -> None:
    """Where the settings cannot be read nothing happens to the workers that serve."""
    before = await server.until(2)
    server.settings.write_text("ADSCENT_DEADLINE_S=soon\n")
    server.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(2.0)
    assert await server.until(2) == before
    assert (await server.call("score", "GET", "/readyz")).status_code == 200


async def test_end_leaves_nothing_undone(server: Server) -> None:
    """SIGTERM under load: every event that was stored was answered and the other way round, and no
    row of a worker stays behind."""
    body = {"user": {}, "slots": 1}
    accepted = 0

    async def send_events() -> None:
        nonlocal accepted
        while True:
            try:
                decided = await server.call("score", "POST", "/v1/decisions", json=body)
                token = decided.json()["ads"][0]["token"]
                events = {"events": [{"type": "impression", "token": token}]}
                answer = await server.call("ingest", "POST", "/v1/events", json=events)
            except httpx.TransportError:
                return  # nobody listens, or nobody took the connection any more
            accepted += answer.json()["accepted"]

    sending = [asyncio.create_task(send_events()) for _ in range(4)]
    await asyncio.sleep(1.0)
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*sending)
    started = time.monotonic()
    await asyncio.to_thread(server.process.wait, 20)
    assert time.monotonic() - started < 10
    async with server.database.session() as connection:
        stored = await connection.fetchval("SELECT count(*) FROM events")
        left = await connection.fetchval("SELECT count(*) FROM workers")
    assert stored == accepted > 0
    assert left == 0
