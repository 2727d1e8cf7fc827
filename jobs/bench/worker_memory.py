"""What each worker of a real `adscent serve` has for itself, after some load on all of them."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from app.storage import keys, workers
from app.storage.processes import free_port
from app.storage.workers import Worker
from jobs.bench.client import Load, Plan
from jobs.bench.deployment import BenchmarkBroken, Deployment
from jobs.bench.report import Measure, Target, measure
from jobs.bench.resident import smaps
from jobs.bench.server import environment, in_a_process

PRIVATE_TARGET: Target = ("value at most", 60.0)
_WORKERS = 2
_PATH = "/v1/decisions"
_CONNECTIONS, _RATE = 16, 100.0
_READY_S = 120.0
_SERVE = ("-c", "from app.cli.main import main; main()", "serve")


async def worker_memory(
    deployment: Deployment, bodies: list[str], seconds: float
) -> dict[str, Measure]:
    """Start `adscent serve`, send decisions for so many seconds, look at each worker's memory."""
    context, port = deployment.context, free_port()
    _, secret = await keys.create_api_key(context.database, "bench", ["score"], context.clock())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *_SERVE), env=_environment(deployment, port)
    )
    try:
        found = await _serving(deployment)
        await _load(port, secret, bodies, seconds)
        sizes = [smaps(worker.pid) for worker in found]
    finally:
        process.terminate()
        await process.wait()
    private = [(one["Private_Clean"] + one["Private_Dirty"]) / 1e6 for one in sizes]
    about = f"each of {_WORKERS} workers of `adscent serve` after {seconds:g} s of decisions"
    return {
        "worker_private": measure(
            private, "MB", f"memory of its own: {about}", target=PRIVATE_TARGET
        ),
        "worker_proportional": measure(
            [one["Pss"] / 1e6 for one in sizes],
            "MB",
            f"with its share of what several processes have (PSS): {about}; baseline: all that is"
            " resident",
            baseline=[one["Rss"] / 1e6 for one in sizes],
        ),
    }


def _environment(deployment: Deployment, port: int) -> dict[str, str]:
    own = {"PORT": port, "METRICS_PORT": free_port(), "WORKERS": _WORKERS, "LOG_LEVEL": "error"}
    return environment(deployment) | {f"ADSCENT_{name}": str(own[name]) for name in own}


async def _serving(deployment: Deployment) -> list[Worker]:
    """The workers, once all of them serve the newest snapshot."""
    wanted = await deployment.served()
    async with asyncio.timeout(_READY_S):
        while True:
            known = await workers.live(deployment.context.database)
            found = [worker for worker in known if worker.snapshot_id == wanted]
            if len(found) == _WORKERS:
                return found
            await asyncio.sleep(0.1)


async def _load(port: int, secret: str, bodies: list[str], seconds: float) -> None:
    plan = Plan(
        port=port,
        path=_PATH,
        bodies=bodies,
        headers={"authorization": f"Bearer {secret}"},
        connections=_CONNECTIONS,
        seconds=seconds,
        requests=1_000_000,
        rate=_RATE,
        wanted='"certified":true',
    )
    found = msgspec.json.decode(await in_a_process(plan), type=Load)
    if not found.answers:
        raise BenchmarkBroken("`adscent serve` answered nothing")
