"""One worker process over a deployment, and the loads that clients of their own send it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from app.storage import keys
from app.storage.processes import free_port
from jobs.bench.application import ANSWERS, TYPES, baseline_path
from jobs.bench.client import Load, Plan
from jobs.bench.deployment import BenchmarkBroken, Deployment

_T = TypeVar("_T")
_READY_S = 120.0
"""How long a process may take until it is ready: 300,000 ads on a busy machine."""
_WANTED = {
    "/v1/score": '"ads":[',
    "/v1/score:batch": '"users":[',
    "/v1/decisions": '"certified":true',
}
"""What every answer must contain."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running worker: `bodies` are the requests of each endpoint, `secret` an API key."""

    pid: int
    port: int
    secret: str
    bodies: dict[str, list[str]]

    def processor_s(self) -> float:
        """Seconds of processor time that the worker has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def load(
        self,
        path: str,
        *,
        seconds: float,
        connections: int = 8,
        requests: int = 1_000_000,
        rate: float | None = None,
        is_baseline: bool = False,
        deadline_ms: int | None = None,
        keeps: bool = False,
    ) -> Load:
        """Send one load. Raises `BenchmarkBroken` for any answer that is not as it must be."""
        plan = Plan(
            port=self.port,
            path=baseline_path(path) if is_baseline else path,
            bodies=self.bodies[path],
            headers={"authorization": f"Bearer {self.secret}"},
            connections=connections,
            seconds=seconds,
            requests=requests,
            rate=rate,
            wanted=_WANTED[path],
            deadline_ms=deadline_ms,
            keeps=keeps,
        )
        found = msgspec.json.decode(await in_a_process(plan), type=Load)
        if found.wrong or not (found.answers or found.refused_ms):
            raise BenchmarkBroken(f"{found.wrong} answers were wrong, first: {found.first_wrong}")
        return found


@asynccontextmanager
async def serving(
    deployment: Deployment, bodies: dict[str, list[str]], settings: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Start a worker, wait until it is ready, record the answers that the baselines repeat.

    `settings`: environment variables beside those that every process of the product is given.
    """
    context = deployment.context
    _, secret = await keys.create_api_key(context.database, "bench", ["score"], context.clock())
    port = free_port()
    answers = context.settings.home / "answers.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobs.bench.application", str(port)),
        env={**environment(deployment), **(settings or {}), ANSWERS: str(answers)},
    )
    try:
        found = await while_running(process, _answers(port, secret, bodies))
        answers.write_bytes(msgspec.json.encode(found))
        yield Server(process.pid, port, secret, bodies)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def environment(deployment: Deployment) -> dict[str, str]:
    """What a process of the product finds its deployment by."""
    settings = deployment.context.settings
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ADSCENT_")}
    return inherited | {
        "ADSCENT_HOME": str(settings.home),
        "ADSCENT_FEATURES": str(settings.features),
        "DATABASE_URL": str(settings.database_url),
        "OMP_NUM_THREADS": "1",
        # On a busy machine a request may wait long; only loads that give deadlines are for refusal.
        "ADSCENT_DEADLINE_S": "30",
    }


async def _answers(port: int, secret: str, bodies: dict[str, list[str]]) -> dict[str, list[str]]:
    """What the product answers to each body, once it is ready."""
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        await until_ready(client)
        found: dict[str, list[str]] = {}
        for path in TYPES:
            answers = [await client.post(path, content=body) for body in bodies[path]]
            for answer in answers:
                answer.raise_for_status()
            found[path] = [answer.text for answer in answers]
    return found


async def while_running(process: asyncio.subprocess.Process, work: Coroutine[Any, Any, _T]) -> _T:
    """What the work gives. Raises `BenchmarkBroken` as soon as the process has ended."""
    working, ended = asyncio.ensure_future(work), asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise BenchmarkBroken(f"the server ended with code {process.returncode}")
        return working.result()
    finally:
        working.cancel()
        ended.cancel()


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait until a process serves. Raises `TimeoutError`."""
    async with asyncio.timeout(_READY_S):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.05)


async def in_a_process(plan: Plan) -> bytes:
    """The load in JSON that a client process of its own made of a plan."""
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobs.bench.client"), stdin=pipe, stdout=pipe
    )
    answer, _ = await client.communicate(msgspec.json.encode(plan))
    if client.returncode:
        raise BenchmarkBroken(f"the client of {plan.path} ended with code {client.returncode}")
    return answer
