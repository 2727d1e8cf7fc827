"""`adscent bench serve`: scores and decisions over HTTP, against endpoints that only answer."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from jobs.bench import layers, overload
from jobs.bench.client import Load
from jobs.bench.deployment import Deployment, deployed
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.server import Server, serving
from jobs.bench.train import FEATURES

CANDIDATES = 100
BATCH_USERS = 50
SLOTS = 3
BATCH = "/v1/score:batch"
TARGETS: dict[str, Target] = {
    "/v1/score": ("ratio at least", 0.7),
    "/v1/decisions": ("ratio at least", 0.5),
}
_NAMES = {"/v1/score": "score", "/v1/decisions": "decisions"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `rate`: requests a second of the paced load that latency is of;
    `factors`: the loads of the overload curve, in capacities."""

    ads: int = 2_000
    events: int = 200_000
    bodies: int = 500
    rounds: int = 5
    seconds: float = 2.5
    connections: int = 8
    rate: float = 200.0
    factors: tuple[float, ...] = overload.FACTORS


QUICK = Sizes(events=20_000, rounds=2, seconds=0.7, factors=(0.5, 1.0, 3.0))


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` for an answer that is not 200 or a decision that is not certified.
    """
    console = Console()
    chosen = sizes or (QUICK if quick else Sizes())
    machine = describe()
    with console.status("loads on a worker"):
        measured = asyncio.run(_measured(chosen, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "workers": 1}
    settings |= asdict(chosen) | {"candidates": CANDIDATES, "slots": SLOTS}
    settings["factors"] = ", ".join(f"{factor:g}" for factor in chosen.factors)
    made = Report("bench serve", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    async with deployed(seed, sizes.ads, sizes.events, FEATURES) as deployment:
        await deployment.ingest(sizes.events)
        await deployment.train(sizes.events)
        bodies = _bodies(deployment, sizes.bodies, seed)
        async with serving(deployment, bodies) as server:
            found: dict[str, Measure] = {}
            for path in _NAMES:
                found |= await _throughput(server, path, sizes)
            found |= await _batch(server, sizes)
            for path in _NAMES:
                found |= await _latency(server, path, sizes)
            capacity = found["score_throughput"].value
            found |= await overload.curve(server, capacity, sizes.seconds, sizes.factors)
            secret = server.secret
        return found | await layers.profile(deployment, secret, bodies, sizes.rounds)


def _bodies(deployment: Deployment, count: int, seed: int) -> dict[str, list[str]]:
    """Requests of the market's visitors; the candidates are any ads."""
    random = np.random.default_rng(seed)
    visitors = deployment.market.visitors(random, count)
    users = [visitors.features(row) for row in range(count)]
    ads = deployment.market.shape.ads
    scores = [
        {"user": user, "ad_ids": (random.permutation(ads)[:CANDIDATES] + 1).tolist()}
        for user in users
    ]
    decisions = [{"user": user, "slots": SLOTS} for user in users]
    batches = [
        {"users": [{"user": users[(at + i) % count]} for i in range(BATCH_USERS)]}
        | {"ad_ids": scores[at]["ad_ids"]}
        for at in range(0, count, 5)
    ]
    found = {"/v1/score": scores, "/v1/decisions": decisions, BATCH: batches}
    return {path: [_json(body) for body in bodies] for path, bodies in found.items()}


def _json(body: object) -> str:
    return msgspec.json.encode(body).decode()


async def _batch(server: Server, sizes: Sizes) -> dict[str, Measure]:
    """Pairs of a user and an ad, many users in a request against one, in turn."""
    pairs: list[tuple[_Flood, _Flood]] = []
    for _ in range(sizes.rounds + 1):
        many = await _flood(server, BATCH, sizes, is_baseline=False)
        pairs.append((many, await _flood(server, "/v1/score", sizes, is_baseline=False)))
    each, of_one = BATCH_USERS * CANDIDATES, CANDIDATES
    about = f"POST {BATCH} ({BATCH_USERS} users, the same {CANDIDATES} candidates); baseline:"
    about += f" POST /v1/score ({CANDIDATES} candidates)"
    return {
        "batch_pairs": measure(
            [each * many.throughput for many, _ in pairs[1:]],
            "pairs/s",
            about,
            baseline=[of_one * single.throughput for _, single in pairs[1:]],
        ),
        "batch_pair_processor": measure(
            [1000 * many.processor_ms / each for many, _ in pairs[1:]],
            "µs",
            f"the worker's processor time for each pair of {about}",
            baseline=[1000 * single.processor_ms / of_one for _, single in pairs[1:]],
        ),
    }


@dataclass(frozen=True, slots=True)
class _Flood:
    """One load as fast as the worker answers: answers a second, and its processor's ms for each."""

    throughput: float
    processor_ms: float


async def _throughput(server: Server, path: str, sizes: Sizes) -> dict[str, Measure]:
    """Endpoint and baseline in turn; the first round is warming."""
    pairs = [
        [await _flood(server, path, sizes, is_baseline=which) for which in (False, True)]
        for _ in range(sizes.rounds + 1)
    ][1:]
    about = (
        f"POST {path} ({_said(path)}), {sizes.connections} connections, one worker; baseline: an"
        " endpoint of the same app that only decodes the same bodies and answers the same bytes"
    )
    return {
        f"{_NAMES[path]}_throughput": measure(
            [own.throughput for own, _ in pairs],
            "requests/s",
            about,
            baseline=[baseline.throughput for _, baseline in pairs],
            target=TARGETS[path],
        ),
        f"{_NAMES[path]}_processor": measure(
            [own.processor_ms for own, _ in pairs],
            "ms",
            f"the worker's processor time for each of these requests to {path}: what other"
            " programs on the machine take away does not count",
            baseline=[baseline.processor_ms for _, baseline in pairs],
        ),
    }


async def _flood(server: Server, path: str, sizes: Sizes, *, is_baseline: bool) -> _Flood:
    before = server.processor_s()
    load = await server.load(
        path, seconds=sizes.seconds, connections=sizes.connections, is_baseline=is_baseline
    )
    used_ms = 1000 * (server.processor_s() - before)
    return _Flood(load.throughput, used_ms / load.answers)


async def _latency(server: Server, path: str, sizes: Sizes) -> dict[str, Measure]:
    """Endpoint and baseline in turn at a fixed rate, counted from when a request was due."""
    loads: tuple[list[Load], list[Load]] = ([], [])
    for _ in range(sizes.rounds):
        for which, found in zip((False, True), loads, strict=True):
            load = await server.load(
                path,
                seconds=sizes.seconds,
                connections=sizes.connections,
                rate=sizes.rate,
                is_baseline=which,
            )
            found.append(load)
    about = f"latency of POST {path} ({_said(path)}) at {sizes.rate:g} requests/s"
    return {
        f"{_NAMES[path]}_p{int(100 * part)}": measure(
            [load.latency_ms(part) for load in loads[0]],
            "ms",
            f"{about}: {part:.0%} of a round stay within it; baseline as for the throughput",
            baseline=[load.latency_ms(part) for load in loads[1]],
        )
        for part in (0.5, 0.99)
    }


def _said(path: str) -> str:
    if path == "/v1/score":
        return f"{CANDIDATES} candidates"
    return f"{SLOTS} slots, every answer certified"
