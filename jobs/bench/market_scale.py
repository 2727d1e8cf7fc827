"""A worker over a catalog of market size: latency of decisions."""

from __future__ import annotations

import msgspec
import numpy as np

from jobs.bench.client import Load
from jobs.bench.deployment import Deployment, deployed
from jobs.bench.indexed_market import FEATURES
from jobs.bench.report import Measure, Target, measure
from jobs.bench.server import Server, serving

RATE = 200.0
P99_TARGET: Target = ("value at most", 10.0)
_CONNECTIONS = 16
_BODIES = 500
_SLOTS = 10
_PATH = "/v1/decisions"


async def measured_worker(
    seed: int, ads: int, events: int, rounds: int, seconds: float
) -> dict[str, Measure]:
    """One worker under a steady load, every answer certified.

    Raises `BenchmarkBroken` for an answer that is not 200 or not certified.
    """
    async with deployed(seed, ads, events, FEATURES) as deployment:
        await deployment.ingest(events)
        await deployment.train(events)
        bodies = _bodies(deployment, seed)
        async with serving(deployment, bodies) as server:
            return await _latency(server, ads, rounds, seconds)


def _bodies(deployment: Deployment, seed: int) -> dict[str, list[str]]:
    """Requests of the market's visitors; only decisions are asked for."""
    visitors = deployment.market.visitors(np.random.default_rng(seed), _BODIES)
    users = [visitors.features(row) for row in range(_BODIES)]
    decisions = [_json({"user": user, "slots": _SLOTS}) for user in users]
    return {_PATH: decisions, "/v1/score": [_json({"user": users[0], "ad_ids": [1]})]}


def _json(body: object) -> str:
    return msgspec.json.encode(body).decode()


async def _latency(server: Server, ads: int, rounds: int, seconds: float) -> dict[str, Measure]:
    loads: tuple[list[Load], list[Load]] = ([], [])
    used: list[float] = []
    for _ in range(rounds):
        for is_baseline, of in zip((False, True), loads, strict=True):
            before = server.processor_s()
            of.append(
                await server.load(
                    _PATH,
                    seconds=seconds,
                    connections=_CONNECTIONS,
                    rate=RATE,
                    is_baseline=is_baseline,
                )
            )
            if not is_baseline:
                used.append(1000 * (server.processor_s() - before) / of[-1].answers)
    about = (
        f"latency of POST {_PATH} ({_SLOTS} slots, all certified) over {ads:,} ads, one worker,"
        f" {RATE:g} requests/s, from when each was due"
    )
    found = {
        f"worker_p{int(100 * part)}": measure(
            [load.latency_ms(part) for load in loads[0]],
            "ms",
            f"{about}: {part:.0%} of a round stay within it; baseline: an endpoint that only"
            " decodes the same bodies and answers the same bytes",
            baseline=[load.latency_ms(part) for load in loads[1]],
            target=P99_TARGET if part == 0.99 else None,
        )
        for part in (0.5, 0.99)
    }
    said = f"the worker's processor time for each of these decisions over {ads:,} ads"
    return found | {"worker_processor": measure(used, "ms", said)}
