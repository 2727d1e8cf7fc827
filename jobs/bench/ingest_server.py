"""A running `adscent serve` that takes events, and what its processes and the database's used."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from app.serving.tokens import Tokens
from app.storage import keys
from app.storage.engine import Database
from app.storage.processes import free_port
from jobs.bench.client import Load, Plan
from jobs.bench.deployment import BenchmarkBroken, Deployment
from jobs.bench.server import environment, in_a_process, until_ready

_SECONDS = 60.0
_TICK_MS = 1000.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ingestion:
    """`pid`: the parent of the workers; `postgres`: PostgreSQL's main process."""

    pid: int
    postgres: int
    port: int
    secret: str
    tokens: Tokens

    def worker_ms(self) -> float:
        """Milliseconds of processor time that the workers have used."""
        return used_ms(below(self.pid))

    def database_ms(self) -> float:
        """Milliseconds of processor time that PostgreSQL has used, sessions that ended included."""
        return used_ms([self.postgres, *below(self.postgres)], ended=True)

    async def send(self, bodies: list[str], connections: int, rate: float | None = None) -> Load:
        """Send each body once, `rate` requests a second. Raises `BenchmarkBroken`."""
        plan = Plan(
            port=self.port,
            path="/v1/events",
            bodies=bodies,
            headers={"authorization": f"Bearer {self.secret}"},
            connections=connections,
            seconds=_SECONDS if rate is None else (len(bodies) + 0.5) / rate,
            requests=len(bodies),
            rate=rate,
            wanted='"duplicate":0,"rejected":[]',
        )
        found = msgspec.json.decode(await in_a_process(plan), type=Load)
        if found.wrong or found.answers != len(bodies):
            detail = f"{found.answers} answers to {len(bodies)} requests, {found.wrong} wrong"
            raise BenchmarkBroken(f"{detail}; the first of them: {found.first_wrong}")
        return found


@asynccontextmanager
async def ingesting(deployment: Deployment, workers: int) -> AsyncIterator[Ingestion]:
    """Start `adscent serve` over the deployment and wait until it is ready."""
    context = deployment.context
    _, secret = await keys.create_api_key(context.database, "bench", ["ingest"], context.clock())
    known, current = await keys.token_keys(context.database)
    tokens = Tokens(known, current, int(context.settings.token_lifetime_s * 1000))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli.main", "serve", "--metrics-port", "0"),
        *("--port", str(port), "--workers", str(workers)),
        env=environment(deployment) | {"ADSCENT_LOG_LEVEL": "error"},
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await until_ready(client)
        yield Ingestion(process.pid, await postgres(context.database), port, secret, tokens)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def postgres(database: Database) -> int:
    """The main process of the database: the parent of any session's."""
    async with database.session() as connection:
        session: int = await connection.fetchval("SELECT pg_backend_pid()")
        return _parent(session)


def below(pid: int) -> list[int]:
    """The processes that one has started, and those that these have."""
    own = [found for found in _processes() if _parent(found) == pid]
    return [*own, *(further for one in own for further in below(one))]


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])


def used_ms(pids: Iterable[int], *, ended: bool = False) -> float:
    """Processor time of these processes; with `ended`, of their children that have ended too."""
    used = [_stat(pid)[11 : 15 if ended else 13] for pid in pids]
    return _TICK_MS * sum(int(ticks) for one in used for ticks in one)


def _stat(pid: int) -> list[str]:
    """What the kernel knows of a process, from its state on; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
