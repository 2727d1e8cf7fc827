"""`adscent bench swap`: snapshots exchanged under load, and how soon a worker starts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
from rich.console import Console

from app.serving.image import FILE
from app.storage import snapshots, workers
from jobs.bench.client import Load
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.resident import smaps
from jobs.bench.server import Server, environment, serving
from jobs.bench.start import Started
from jobs.bench.train import FEATURES
from jobs.bench.two_snapshots import Expected, expected, two_snapshots
from jobs.bench.worker_memory import worker_memory

P99_TARGET: Target = ("ratio at most", 1.5)
MEMORY_TARGET: Target = ("ratio at most", 1.05)
START_TARGET: Target = ("value at most", 2.0)
SLOTS = 10
_PATH = "/v1/decisions"
_CONNECTIONS = 8
_PER_ADVERTISER = 1
_LOOK_AGAIN_S = 0.02
_SETTINGS = {
    # A new ad may be tried in any decision: without them an answer follows from the snapshot.
    "ADSCENT_EXPLORATION_SHARE": "0",
    "ADSCENT_PER_ADVERTISER": str(_PER_ADVERTISER),
    # Nothing is shed: whatever keeps a request waiting is to be seen in its latency.
    "ADSCENT_DEADLINE_S": "30",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. A round: `steady_s` without swaps, then `swaps` every `every_s`.

    `changes`: ads changed in each of four ways between the snapshots; `around`: memory after 10
    swaps and after the last is the median of so many; `memory_s`: load on a server before its
    workers' memory is looked at.
    """

    ads: int = 300_000
    events: int = 100_000
    changes: int = 100
    rounds: int = 10
    steady_s: float = 8.0
    swaps: int = 30
    every_s: float = 2.0
    rate: float = 100.0
    bodies: int = 500
    starts: int = 3
    around: int = 10
    memory_s: float = 10.0


QUICK = Sizes(20_000, 20_000, 50, 1, 4.0, 6, bodies=100, starts=1, around=2, memory_s=3.0)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` for a request that fails, an answer that is not one snapshot's own, or
    a swap that does not come.
    """
    console, chosen = Console(), sizes or (QUICK if quick else Sizes())
    machine = describe()
    with console.status(f"{chosen.ads:,} ads, {chosen.rounds * chosen.swaps} swaps"):
        measured = asyncio.run(_measured(chosen, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "slots": SLOTS}
    made = Report("bench swap", FORMAT, machine, settings | asdict(chosen), measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


@dataclass(slots=True)
class _Seen:
    """What the rounds showed; memory in bytes after each swap."""

    steady: list[Load] = field(default_factory=list)
    swapping: list[Load] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    private: list[int] = field(default_factory=list)
    answers: int = 0


async def _measured(sizes: Sizes, seed: int) -> dict[str, Measure]:
    async with deployed(seed, sizes.ads, 2 * sizes.events, FEATURES) as deployment:
        ids = await two_snapshots(deployment, sizes.events, sizes.changes)
        bodies = _bodies(deployment, sizes.bodies, seed)
        answers = await expected(deployment, ids, bodies[_PATH], _PER_ADVERTISER)
        found = await _starts(deployment, ids[-1], sizes)
        found |= await worker_memory(deployment, bodies[_PATH], sizes.memory_s)
        async with serving(deployment, bodies, _SETTINGS) as server:
            seen = await _rounds(deployment, server, ids, answers, sizes)
        return found | _swaps(seen, sizes) | _memory(seen, sizes)


async def _rounds(
    deployment: Deployment, server: Server, ids: Sequence[UUID], answers: Expected, sizes: Sizes
) -> _Seen:
    seen = _Seen()
    await _load(server, sizes, sizes.steady_s)  # warming
    for _ in range(sizes.rounds):
        seen.steady.append(await _load(server, sizes, sizes.steady_s))
        load, _ = await asyncio.gather(
            _load(server, sizes, sizes.swaps * sizes.every_s),
            _swap(deployment, server, ids, seen, sizes),
        )
        seen.swapping.append(load)
        seen.answers += answers.check(seen.steady[-1].kept) + answers.check(load.kept)
    return seen


async def _load(server: Server, sizes: Sizes, seconds: float) -> Load:
    return await server.load(
        _PATH, seconds=seconds, connections=_CONNECTIONS, rate=sizes.rate, keeps=True
    )


async def _swap(
    deployment: Deployment, server: Server, ids: Sequence[UUID], seen: _Seen, sizes: Sizes
) -> None:
    """A round's swaps, one after the other; the last snapshot was promoted last before them."""
    database, began = deployment.context.database, time.perf_counter()
    for number in range(sizes.swaps):
        await asyncio.sleep(max(0.0, began + number * sizes.every_s - time.perf_counter()))
        wanted, started = ids[len(seen.seconds) % 2], time.perf_counter()
        await snapshots.promote(database, wanted, "bench", deployment.context.clock())
        await _served(deployment, server, wanted)
        seen.seconds.append(time.perf_counter() - started)
        memory = smaps(server.pid)
        seen.resident.append(memory["Rss"])
        seen.private.append(memory["Private_Clean"] + memory["Private_Dirty"])


async def _served(deployment: Deployment, server: Server, wanted: UUID) -> None:
    """Wait until the worker says that it serves this snapshot."""
    try:
        async with asyncio.timeout(30.0):
            while not await _says(deployment, server, wanted):  # noqa: ASYNC110 - another process
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError as error:
        raise BenchmarkBroken(f"the worker did not swap to snapshot {wanted}") from error


async def _says(deployment: Deployment, server: Server, wanted: UUID) -> bool:
    found = await workers.live(deployment.context.database)
    return any(one.pid == server.pid and one.snapshot_id == wanted for one in found)


async def _starts(deployment: Deployment, served: UUID, sizes: Sizes) -> dict[str, Measure]:
    """Starts from the image, and one for which the whole catalog comes from the database."""
    found = [await _start(deployment) for _ in range(sizes.starts)]
    image = deployment.context.store / str(served) / FILE
    aside = image.with_suffix(".aside")
    image.rename(aside)
    try:
        without = await _start(deployment)
    finally:
        aside.rename(image)
    return {
        "start": measure(
            [one.seconds for one in found],
            "s",
            f"a worker's start with {sizes.ads:,} ads, from its imports done until it is ready and"
            " warm; baseline: without the image of the catalog, all of it read from the database",
            baseline=[without.seconds] * len(found),
            target=START_TARGET,
        ),
        "start_private": measure(
            [one.private / 1e6 for one in found],
            "MB",
            "memory of the ready worker that it shares with no other process, before any request;"
            " baseline as for its start",
            baseline=[without.private / 1e6] * len(found),
        ),
    }


async def _start(deployment: Deployment) -> Started:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "jobs.bench.start"),
        stdout=asyncio.subprocess.PIPE,
        env=environment(deployment),
    )
    answer, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkBroken(f"a worker's start ended with code {process.returncode}")
    return msgspec.json.decode(answer, type=Started)


def _bodies(deployment: Deployment, count: int, seed: int) -> dict[str, list[str]]:
    """Requests of the market's visitors; only decisions are asked for."""
    visitors = deployment.market.visitors(np.random.default_rng(seed), count)
    users: list[Mapping[str, object]] = [visitors.features(row) for row in range(count)]
    decisions = [_json({"user": user, "slots": SLOTS}) for user in users]
    return {_PATH: decisions, "/v1/score": [_json({"user": users[0], "ad_ids": [1]})]}


def _json(body: object) -> str:
    return msgspec.json.encode(body).decode()


def _swaps(seen: _Seen, sizes: Sizes) -> dict[str, Measure]:
    about = (
        f"latency of POST {_PATH} ({SLOTS} slots) over {sizes.ads:,} ads at {sizes.rate:g}"
        f" requests/s, from when each was due, with a swap every {sizes.every_s:g} s"
    )
    found = {
        f"swap_p{int(100 * part)}": measure(
            [load.latency_ms(part) for load in seen.swapping],
            "ms",
            f"{about}: {part:.0%} of a round stay within it; baseline: without swaps, just before",
            baseline=[load.latency_ms(part) for load in seen.steady],
            target=P99_TARGET if part == 0.99 else None,
        )
        for part in (0.5, 0.99)
    }
    return found | {
        "swap_seconds": measure(
            seen.seconds, "s", "from the promotion until the worker says that it serves the other"
        ),
        "swap_answers": measure(
            [float(seen.answers)],
            "answers",
            "all answered, every one with the ads, pCTRs and eCPMs of the snapshot that it names",
        ),
    }


def _memory(seen: _Seen, sizes: Sizes) -> dict[str, Measure]:
    about = (
        f"of the worker after the last of {len(seen.seconds)} swaps, median of {sizes.around};"
        " baseline: as many from the tenth on (with few swaps, from the first)"
    )
    first = 9 if len(seen.resident) > 10 + sizes.around else 0
    return {
        f"swap_{name}": measure(
            [size / 1e6 for size in sizes_[-sizes.around :]],
            "MB",
            f"{what} {about}",
            baseline=[size / 1e6 for size in sizes_[first : first + sizes.around]],
            target=MEMORY_TARGET if name == "resident" else None,
        )
        for name, what, sizes_ in (
            ("resident", "resident memory, pages of mapped files included,", seen.resident),
            ("private", "memory that no other process shares,", seen.private),
        )
    }
