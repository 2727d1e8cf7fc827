"""`adscent bench pause`: how long until a pause is confirmed, and whether it holds from then on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import httpx
import msgspec
import numpy as np
from rich.console import Console

from app.storage import keys, workers
from app.storage.processes import free_port
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.server import environment
from jobs.bench.train import FEATURES
from jobs.bench.two_snapshots import two_snapshots
from jobs.bench.visitors import Visitors

P99_TARGET: Target = ("value at most", 250.0)
_SERVE = ("-c", "from app.cli.main import main; main()", "serve")
_READY_S = 120.0
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query ILIKE 'listen %'
"""
_CUT_EVERY_S = 0.05
_SETTINGS = {
    # Every answer counts, also a late one: nothing is refused for lack of time.
    "DEADLINE_S": "30",
    "EXPLORATION_SHARE": "0",
    "LOG_LEVEL": "error",
    "ACKNOWLEDGE_TIMEOUT_S": "10",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: `phase_s` of pauses and returns, back to back but for `rest_s`, in each
    phase, over decisions at `rate` a second; what a phase does it does every `every_s`."""

    ads: int = 50_000
    events: int = 50_000
    changes: int = 100
    workers: int = 4
    rate: float = 200.0
    connections: int = 16
    bodies: int = 300
    phase_s: float = 60.0
    every_s: float = 3.0
    rest_s: float = 0.02


QUICK = Sizes(5_000, 10_000, 50, 2, 100.0, 8, 100, 6.0, 2.0)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` for a decision that shows an ad after its pause was confirmed, and for
    one that fails where no process was killed.
    """
    console, chosen = Console(), sizes or (QUICK if quick else Sizes())
    machine = describe()
    with console.status(f"{chosen.workers} workers, {chosen.ads:,} ads"):
        measured = asyncio.run(_measured(chosen, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick}
    made = Report("bench pause", FORMAT, machine, settings | asdict(chosen), measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


@dataclass(slots=True)
class _Phase:
    """One phase: how long each change took, and the decisions looked at."""

    milliseconds: list[float] = field(default_factory=list)
    decisions: int = 0


@dataclass(frozen=True, slots=True)
class _Running:
    """A server under measurement."""

    deployment: Deployment
    sizes: Sizes
    process: asyncio.subprocess.Process
    admin: httpx.AsyncClient
    visitors: Visitors
    random: Random


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    async with deployed(seed, sizes.ads, 2 * sizes.events, FEATURES) as deployment:
        ids = await two_snapshots(deployment, sizes.events, sizes.changes)
        async with _served(deployment, sizes, seed) as server:
            other = {"promote": 0}

            async def swap() -> None:
                other["promote"] += 1
                await _post(server, f"/v1/snapshots/{ids[other['promote'] % 2]}/promote")

            async def roll_back() -> None:
                await swap()
                await _post(server, "/v1/snapshots/rollback")

            phases = {
                "quiet": await _phase(server, rate=1.0),
                "steady": await _phase(server),
                "swaps": await _phase(server, swap),
                "rollbacks": await _phase(server, roll_back),
                "unheard": await _phase(server, lambda: _cut(server), _CUT_EVERY_S),
                "restarts": await _phase(server, lambda: _restart(server)),
                "kills": await _phase(server, lambda: _kill(server), may_fail=True),
            }
    return _measures(phases, sizes)


async def _phase(
    server: _Running,
    act: Callable[[], Awaitable[None]] | None = None,
    every_s: float | None = None,
    *,
    rate: float | None = None,
    may_fail: bool = False,
) -> _Phase:
    """Pauses and returns for a while, with `act` again and again beside them."""
    sizes, found = server.sizes, _Phase()
    connections = sizes.connections if rate is None else 1
    async with server.visitors.coming(connections, rate or sizes.rate) as seen:
        until = time.perf_counter() + sizes.phase_s
        acting = asyncio.create_task(_again(act, every_s or sizes.every_s, until))
        while time.perf_counter() < until:
            await _change(server, found)
            await asyncio.sleep(sizes.rest_s)
        await acting
    if seen.broken:
        raise BenchmarkBroken(f"{len(seen.broken)} paused ads were shown, first: {seen.broken[0]}")
    if seen.failures and not may_fail:
        first = seen.failures[0]
        raise BenchmarkBroken(f"{len(seen.failures)} decisions failed, first: {first}")
    found.decisions = seen.decisions
    return found


async def _again(act: Callable[[], Awaitable[None]] | None, every_s: float, until: float) -> None:
    while act is not None and time.perf_counter() < until - every_s:
        await asyncio.sleep(every_s)
        await act()


async def _change(server: _Running, found: _Phase) -> None:
    """Pause an ad that is being shown, and let it return."""
    shown = list(server.visitors.seen.shown)
    if not shown:
        return
    ad_id = server.random.choice(shown)
    await _patch(server, ad_id, "paused", found)
    server.visitors.hold(ad_id)
    await asyncio.sleep(server.sizes.rest_s)
    server.visitors.release(ad_id)
    await _patch(server, ad_id, "active", found)


async def _patch(server: _Running, ad_id: int, state: str, found: _Phase) -> None:
    """Note how long a change took. A call that lost its worker is repeated, as anybody would.

    Raises `BenchmarkBroken` for a change that not all workers confirmed.
    """
    started = time.perf_counter()
    while True:
        try:
            answer = await _call(server, "PATCH", f"/v1/ads/{ad_id}", {"state": state})
        except httpx.TransportError:
            continue
        if answer.status_code in (200, 202):
            break
        if answer.status_code != 503:
            raise BenchmarkBroken(f"the change was answered with {answer.status_code}")
    found.milliseconds.append(1000 * (time.perf_counter() - started))
    if answer.status_code == 202:
        raise BenchmarkBroken(f"a change was not confirmed: {answer.json()['pending']}")


async def _post(server: _Running, path: str) -> None:
    answer = await _call(server, "POST", path, {})
    if answer.status_code not in (200, 202):
        raise BenchmarkBroken(f"POST {path} was answered with {answer.status_code}: {answer.text}")


async def _call(server: _Running, method: str, path: str, body: object) -> httpx.Response:
    """One call on a connection of its own, so that any worker may take it."""
    return await server.admin.request(method, path, json=body)


async def _cut(server: _Running) -> None:
    """End the sessions that listen: until they are back only polls tell of a change."""
    async with server.deployment.context.database.session() as connection:
        await connection.execute(_CUT)


async def _restart(server: _Running) -> None:
    """Exchange the workers one by one."""
    server.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(0)


async def _kill(server: _Running) -> None:
    present = await workers.live(server.deployment.context.database)
    os.kill(server.random.choice(present).pid, signal.SIGKILL)


@asynccontextmanager
async def _served(deployment: Deployment, sizes: Sizes, seed: int) -> AsyncIterator[_Running]:
    """`adscent serve` with all workers ready."""
    context, port = deployment.context, free_port()
    secrets = [
        (await keys.create_api_key(context.database, scope, [scope], context.clock()))[1]
        for scope in ("score", "admin")
    ]
    own = {"PORT": port, "METRICS_PORT": free_port(), "WORKERS": sizes.workers} | _SETTINGS
    given = environment(deployment) | {f"ADSCENT_{name}": str(own[name]) for name in own}
    process = await asyncio.create_subprocess_exec(sys.executable, *_SERVE, env=given)
    visitors = Visitors(port, secrets[0], _bodies(deployment, sizes.bodies, seed))
    admin = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"authorization": f"Bearer {secrets[1]}"},
        limits=httpx.Limits(max_keepalive_connections=0),
        timeout=60,
    )
    try:
        await _all_serve(deployment, sizes.workers)
        chance = Random(seed)  # noqa: S311 - to be repeated
        async with admin:
            yield _Running(deployment, sizes, process, admin, visitors, chance)
    finally:
        process.terminate()
        await process.wait()


async def _all_serve(deployment: Deployment, count: int) -> None:
    wanted = await deployment.served()
    async with asyncio.timeout(_READY_S):
        while True:
            known = await workers.live(deployment.context.database)
            if sum(worker.snapshot_id == wanted for worker in known) == count:
                return
            await asyncio.sleep(0.1)


def _bodies(deployment: Deployment, count: int, seed: int) -> list[str]:
    visitors = deployment.market.visitors(np.random.default_rng(seed), count)
    asked: list[Mapping[str, object]] = [
        {"user": visitors.features(row), "slots": 5} for row in range(count)
    ]
    return [msgspec.json.encode(body).decode() for body in asked]


def _measures(phases: Mapping[str, _Phase], sizes: Sizes) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for name, about in ABOUT.items():
        times = sorted(phases[name].milliseconds)
        if not times:
            raise BenchmarkBroken(f"no ad was shown in the phase {name}")
        for part in (0.5, 0.99):
            found[f"{name}_p{int(100 * part)}"] = measure(
                [times[min(int(part * len(times)), len(times) - 1)]],
                "ms",
                f"{part:.0%} of {len(times)} pauses and returns were confirmed by all"
                f" {sizes.workers} workers within it, {about}",
                target=P99_TARGET if part == 0.99 else None,
            )
    decisions = sum(phase.decisions for phase in phases.values())
    about = "decisions looked at: none that began after a pause was confirmed showed the ad"
    return found | {"decisions": measure([float(decisions)], "answers", about)}


ABOUT = {
    "quiet": "with next to no decisions",
    "steady": "with decisions at the full rate",
    "swaps": "with a snapshot promoted every few seconds",
    "rollbacks": "with a promotion and a rollback every few seconds",
    "unheard": "with the listening sessions ended twenty times a second: polls tell of changes",
    "restarts": "with the workers exchanged one by one (SIGHUP), no decision lost",
    "kills": "with a worker killed (SIGKILL) every few seconds",
}
