"""More requests than a worker can answer: what it answers, what it refuses, and how late."""

from __future__ import annotations

from jobs.bench.client import Load
from jobs.bench.report import Measure, measure
from jobs.bench.server import Server

PATH = "/v1/score"
DEADLINE_MS = 100
FACTORS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_CONNECTIONS = 400


async def curve(
    server: Server, capacity: float, seconds: float, factors: tuple[float, ...] = FACTORS
) -> dict[str, Measure]:
    """Loads of so many times the `capacity` (requests/s), sent on schedule whatever comes back."""
    found: dict[str, Measure] = {}
    for factor in factors:
        load = await server.load(
            PATH,
            seconds=seconds,
            connections=_CONNECTIONS,
            rate=factor * capacity,
            deadline_ms=DEADLINE_MS,
        )
        found |= _point(factor, factor * capacity, load)
    return found


def _point(factor: float, offered: float, load: Load) -> dict[str, Measure]:
    name, about = f"overload_{factor:g}x", f"POST {PATH} at {factor:g} times the capacity"
    found = {
        f"{name}_answered": measure(
            [max(load.answers, 1) / load.seconds],
            "requests/s",
            f"{about}: requests answered with scores (one stands for none); baseline: requests"
            " that were due. The others were refused with 503, or their deadline passed before they"
            " could be sent",
            baseline=[offered],
        ),
    }
    if load.answers:  # none, where other programs leave worker or client next to nothing
        found |= _latencies(name, about, load)
    if load.refused_ms:
        late = load.refused_ms[int(0.99 * len(load.refused_ms))]
        found[f"{name}_refused_p99"] = measure([late], "ms", f"{about}: 99 % of the refusals")
    return found


def _latencies(name: str, about: str, load: Load) -> dict[str, Measure]:
    return {
        f"{name}_p50": measure(
            [load.latency_ms(0.5)], "ms", f"{about}: half of the answers, from when each was due"
        ),
        f"{name}_p99": measure(
            [load.latency_ms(0.99)],
            "ms",
            f"{about}: 99 % of the answers; the target is the deadline that every request gave",
            target=("value at most", float(DEADLINE_MS)),
        ),
    }
