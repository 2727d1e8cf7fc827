"""`adscent bench soak`: a whole deployment at half of its capacity for half an hour.

Is its memory flat, is its latency flat, and is every acknowledged event in the table, in a chunk
and in the statistics exactly once?
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import httpx
import msgspec
import numpy as np
from rich.console import Console

from app.storage import keys, workers
from app.storage.processes import free_port
from jobs.bench import soak_ledger
from jobs.bench.deployment import BenchmarkBroken, Deployment, deployed
from jobs.bench.ingest_server import below, postgres
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, Target, measure, show, write
from jobs.bench.server import environment, until_ready
from jobs.bench.soak_ledger import Held, Ledger
from jobs.bench.soak_memory import Memory
from jobs.bench.soak_visits import Seen, VisitPlan
from jobs.bench.train import FEATURES

FLAT_P50: Target = ("ratio at most", 1.25)
FLAT_P99: Target = ("ratio at most", 1.5)
ANSWERED: Target = ("ratio at least", 0.999)
_ADS = 2_000
_SLOTS = 3
_BODIES = 2_000
_READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How long and how much. `part`: which part of the measured capacity is asked for.

    `warm_s`: before the capacity is measured, and again before anything is looked at.
    """

    minutes: float = 30.0
    workers: int = 2
    part: float = 0.5
    open: int = 24
    capacity_s: float = 20.0
    warm_s: float = 60.0
    period_s: float = 60.0
    look_s: float = 5.0
    retrain_every_s: float = 60.0
    window_s: float = 10.0
    ads: int = _ADS


QUICK = Sizes(
    1.0, capacity_s=5.0, warm_s=8.0, period_s=10.0, look_s=1.0, retrain_every_s=10.0, window_s=5.0
)


def sized(minutes: float | None, quick: bool) -> Sizes:
    """The sizes of a run of so many minutes: short ones have shorter periods."""
    if quick:
        return replace(QUICK, minutes=minutes or QUICK.minutes)
    chosen = Sizes(minutes=minutes or Sizes().minutes)
    return chosen if chosen.minutes >= 9 else replace(chosen, period_s=10.0, look_s=2.0)


def run(report: Path | None, seed: int, minutes: float | None = None, quick: bool = False) -> int:
    """Run, print the table, write the JSON report. Returns 0, or 1 when the ledger disagrees.

    Raises `BenchmarkBroken` when a process ends, a worker too, or nothing is answered.
    """
    console, sizes = Console(), sized(minutes, quick)
    machine = describe()
    with console.status(f"soaking for {sizes.minutes:g} minutes"):
        measured, faults = asyncio.run(_measured(sizes, seed))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, **asdict(sizes)}
    made = Report("bench soak", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    for fault in faults:
        console.print(fault, style="red", markup=False, highlight=False)
    return 1 if faults else 0


async def _measured(sizes: Sizes, seed: int) -> tuple[dict[str, Measure], list[str]]:
    async with (
        deployed(seed, sizes.ads, 1, FEATURES) as deployment,
        _running(deployment, sizes) as rig,
    ):
        await rig.visits(sizes.warm_s)
        capacity = (await rig.visits(sizes.capacity_s)).visits_per_s
        rate = sizes.part * capacity
        await rig.visits(sizes.warm_s, rate)
        memory = Memory(rig.processes)
        watching = asyncio.create_task(memory.watch(sizes.look_s))
        seen = await rig.visits(60 * sizes.minutes, rate)
        if watching.done():
            watching.result()  # raises what ended it
        watching.cancel()
        soak_ledger.check_any(rig.ledger)
        held = await soak_ledger.held(deployment.context.database, rig.ledger)
        found = {"capacity": _capacity(capacity, rate)}
        found |= (
            _answered(seen)
            | _latencies(seen)
            | memory.measures()
            | soak_ledger.measures(rig.ledger, held)
        )
        return found, _faults(rig, held)


class _Rig:
    """A running deployment, and everything that its visitors were told was stored."""

    def __init__(
        self, sizes: Sizes, plan: VisitPlan, processes: dict[str, list[int]], postgres_pid: int
    ) -> None:
        self.ledger = Ledger()
        self.failures: list[str] = []
        self._sizes, self._plan = sizes, plan
        self._known, self._postgres = processes, postgres_pid
        self._loads = 0

    def processes(self) -> dict[str, list[int]]:
        """What memory is looked at; of PostgreSQL all processes together, as they come and go."""
        return {**self._known, "postgresql": [self._postgres, *below(self._postgres)]}

    async def visits(self, seconds: float, rate: float | None = None) -> Seen:
        """Send visits and enter what was acknowledged; as fast as they are answered, or paced."""
        self._loads += 1
        plan = msgspec.structs.replace(
            self._plan, seconds=seconds, rate=rate, seed=self._plan.seed + self._loads
        )
        pipe = asyncio.subprocess.PIPE
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jobs.bench.soak_visits"), stdin=pipe, stdout=pipe
        )
        try:
            answer, _ = await client.communicate(msgspec.json.encode(plan))
        finally:
            if client.returncode is None:
                client.kill()
        if client.returncode:
            raise BenchmarkBroken(f"the visitors ended with code {client.returncode}")
        seen = msgspec.json.decode(answer, type=Seen)
        self.ledger.add(seen)
        if seen.failed:
            self.failures.append(f"{seen.failed} answers were wrong, first: {seen.first_failed}")
        return seen


@asynccontextmanager
async def _running(deployment: Deployment, sizes: Sizes) -> AsyncIterator[_Rig]:
    """Start `adscent serve` and `adscent jobs`, ready for visits; stop them at the end."""
    context, port = deployment.context, free_port()
    scopes: list[keys.Scope] = ["score", "ingest"]
    _, secret = await keys.create_api_key(context.database, "soak", scopes, context.clock())
    given = _environment(deployment, sizes, port)
    started: dict[str, asyncio.subprocess.Process] = {}
    try:
        for command in ("serve", "jobs"):
            started[command] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.cli.main", command), env=given
            )
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await until_ready(client)
        processes = {name: [process.pid] for name, process in started.items()}
        for number, pid in enumerate(await _workers(deployment, sizes.workers), 1):
            processes[f"worker_{number}"] = [pid]
        plan = VisitPlan(
            port=port,
            secret=secret,
            bodies=_bodies(deployment),
            seconds=0.0,
            period_s=sizes.period_s,
            open=sizes.open,
            seed=deployment.market.seed,
        )
        yield _Rig(sizes, plan, processes, await postgres(context.database))
        _check(started)
    finally:
        for process in started.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in started.values()))


def _environment(deployment: Deployment, sizes: Sizes, port: int) -> dict[str, str]:
    own = {
        "PORT": port,
        "METRICS_PORT": 0,
        "JOBS_METRICS_PORT": 0,
        "WORKERS": sizes.workers,
        "LOG_LEVEL": "error",
        "RETRAIN_EVERY_S": sizes.retrain_every_s,
        "ATTRIBUTION_WINDOW_S": sizes.window_s,
        "HORIZON_EVERY_S": 2,
        "STATISTICS_EVERY_S": 5,
        "DEADLINE_S": 2,  # the product's own: what nobody waits for is not worked on
    }
    return environment(deployment) | {f"ADSCENT_{name}": str(own[name]) for name in own}


async def _workers(deployment: Deployment, count: int) -> list[int]:
    """The processes of the workers, once all of them serve. Raises `TimeoutError`."""
    async with asyncio.timeout(_READY_S):
        while True:
            known = await workers.live(deployment.context.database)
            ready = sorted(one.pid for one in known if one.snapshot_id is not None)
            if len(ready) == count:
                return ready
            await asyncio.sleep(0.1)


def _check(started: dict[str, asyncio.subprocess.Process]) -> None:
    for name, process in started.items():
        if process.returncode is not None:
            raise BenchmarkBroken(f"adscent {name} has ended with {process.returncode}")


def _bodies(deployment: Deployment) -> list[str]:
    """Requests for a page, of visitors of the market at its hours."""
    market = deployment.market
    visitors = market.visitors(np.random.default_rng(market.seed), _BODIES)
    bodies = []
    for row in range(_BODIES):
        user = visitors.features(row)
        placement = user.pop("placement")
        asked = {"user": user, "placement": placement, "slots": _SLOTS, "per_advertiser": _SLOTS}
        bodies.append(msgspec.json.encode(asked).decode())
    return bodies


def _capacity(capacity: float, rate: float) -> Measure:
    about = (
        "visits that were answered, as many at once as may be open: a decision, its impressions,"
        f" sometimes clicks, some of them sent twice; the soak asks for {rate:.1f} a second"
    )
    return measure([capacity], "visits/s", about)


def _answered(seen: Seen) -> dict[str, Measure]:
    about = (
        "decisions that were answered; baseline: those that were due. The others were refused with"
        f" 503 or not answered within 10 s; events were sent again {seen.again} times, on purpose"
        " or since they were not acknowledged"
    )
    answered = measure(
        [float(seen.visits)], "answers", about, baseline=[float(seen.due)], target=ANSWERED
    )
    return {"answered": answered}


def _latencies(seen: Seen) -> dict[str, Measure]:
    """Each percentile by period, and the last third of them against the first."""
    if len(seen.periods) < 3:
        raise BenchmarkBroken("the soak was too short: it has not three periods")
    found: dict[str, Measure] = {}
    for kind, what in (("decision", "a decision, from when it was due"), ("events", "events")):
        for part, flat in (("p50", FLAT_P50), ("p99", FLAT_P99)):
            values = [getattr(one, f"{kind}_{part}") for one in seen.periods]
            found[f"{kind}_{part}"] = measure(
                values, "ms", f"{part} of {what}: median of the periods, each in `rounds`"
            )
            found[f"{kind}_{part}_last_third"] = _thirds(values, part, what, flat)
    return found


def _thirds(values: Sequence[float], part: str, what: str, flat: Target) -> Measure:
    third = len(values) // 3
    about = f"{part} of {what}: median of the last third of the periods; baseline: of the first"
    last, first = median(values[-third:]), median(values[:third])
    return measure([last], "ms", about, baseline=[first], target=flat)


def _faults(rig: _Rig, held: Held) -> list[str]:
    return [*soak_ledger.faults(rig.ledger, held), *rig.failures]
