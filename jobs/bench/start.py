"""A worker's start, in a process of its own: from its imports done until it is ready.

`python -m jobs.bench.start` prints a JSON `Started`.
"""

from __future__ import annotations

import asyncio
import sys
import time

import httpx
import msgspec

from app import logs, settings
from app.main import create_app
from jobs.bench.resident import smaps

_LOOK_AGAIN_S = 0.005
_READY_S = 300.0


class Started(msgspec.Struct, frozen=True):
    """Seconds until `/readyz` answers 200; the process's own memory then, in bytes."""

    seconds: float
    private: int


async def _started() -> Started:
    app = create_app(settings.from_environment())
    transport = httpx.ASGITransport(app)
    began = time.perf_counter()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://worker") as client,
    ):
        async with asyncio.timeout(_READY_S):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - as a probe
                await asyncio.sleep(_LOOK_AGAIN_S)
        seconds = time.perf_counter() - began
        found = smaps("self")
        return Started(seconds, found["Private_Clean"] + found["Private_Dirty"])


if __name__ == "__main__":
    logs.configure("error")
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_started())))
