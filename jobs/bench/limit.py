"""What the machine allows the kernel: bytes and operations an event, and how fast both can be had.

Counted is what the equations need at the least. Every entry of an event's vectors is a parameter
and an accumulator, both read and written: 4 floats, 16 bytes; row numbers, pointers, label and
scores come on top. Room for one event stays in the first cache and is not counted. An entry takes
15 operations, a division counted as one: mean 2, aim 5 (j, 1/π, the move, its part of V), step 8
(move 2, square 2, growth 4); the pairs' products take 3 each and the inner product 2 for each of D.

`python -m jobs.bench.limit` measures bandwidths and arithmetic of one thread in a new process,
because the number of threads of a matrix product is set when NumPy is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import msgspec
import numpy as np

from jobs.bench.report import Measure, measure
from jobs.bench.shapes import Widths, schema_of
from models.kernels import Shape
from models.types import Batch

_FAR, _NEAR = 1 << 27, 1 << 17
"""Bytes of a copy that leaves every cache, and of one that stays in the second (256 KB with its
source)."""
_SIDE = 512
"""Rows and columns of the matrices: 3 MB."""
_REPEATS = 7


class Rates(msgspec.Struct, frozen=True):
    """Rates of one thread, one a round: GB/s read and written together, 10⁹ operations/s."""

    memory: list[float]
    cache: list[float]
    arithmetic: list[float]


def limit_measures(kernels: dict[str, Measure], drawn: Batch, widths: Widths) -> dict[str, Measure]:
    """The probes, and the kernel of that shape against what each of them would allow.

    `kernels`: the measures of `kernel_measures`; `drawn`: the events that they were made on.
    """
    rates, shape = _rates(), _shape(widths)
    name, size, work = (
        f"kernel_d{shape.dimensions}",
        event_bytes(shape, drawn),
        operations(shape, drawn),
    )
    limits = (
        ("memory", rates.memory, size, "B of parameters, if all came from main memory"),
        ("cache", rates.cache, size, "B of parameters, if all came from the second cache"),
        ("arithmetic", rates.arithmetic, work, "operations, if all were those of a matrix product"),
    )
    found = {
        "probe_memory": measure(rates.memory, "GB/s", "a copy of 128 MiB, read and written"),
        "probe_cache": measure(rates.cache, "GB/s", "a copy of 128 KiB, read and written"),
        "probe_arithmetic": measure(
            rates.arithmetic, "Gflop/s", "float32 matrix product, 512 × 512, one thread"
        ),
    }
    speeds = kernels[name].rounds
    for kind, probed, each, about in limits:
        limit = [1e9 * max(probed) / each] * len(speeds)
        text = f"the kernel; baseline: the best round of the probe, {each:,.0f} {about}"
        found[f"{name}_of_{kind}"] = measure(speeds, "events/s", text, baseline=limit)
    return found


def event_bytes(shape: Shape, drawn: Batch) -> float:
    """Bytes that an event of `drawn` reads and writes, on average."""
    user, ad = _values(drawn)
    parameters = 16.0 * (user * (shape.user_width + 1) + ad * (shape.dimensions + 1))
    numbers = 8.0 * (user + ad + shape.user_features + shape.ad_features)
    return parameters + numbers + 4.0 + 8.0


def operations(shape: Shape, drawn: Batch) -> float:
    """Floating-point operations of an event of `drawn`, on average."""
    user, ad = _values(drawn)
    pairs = shape.user_features * (shape.user_features - 1) // 2 * shape.overlap
    entries = user * (shape.user_width + 1) + ad * (shape.dimensions + 1)
    return 15.0 * entries + 3.0 * pairs + 2.0 * shape.dimensions


def _shape(widths: Widths) -> Shape:
    schema = schema_of(widths)
    return Shape(len(schema.user), len(schema.ad), widths[1], widths[2])


def _values(drawn: Batch) -> tuple[float, float]:
    """Values that an event has on each side, on average."""
    return len(drawn.user.ids) / len(drawn), len(drawn.ad.ids) / len(drawn)


def _rates() -> Rates:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jobs.bench.limit"]
    printed = subprocess.check_output(command, env=environment)  # noqa: S603 - our own module
    return msgspec.json.decode(printed, type=Rates)


def _probe() -> Rates:
    return Rates(_copies(_FAR), _copies(_NEAR), _products())


def _copies(size: int) -> list[float]:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    times = max(1, (1 << 28) // size)
    return [
        2e-9 * size * times / _seconds(lambda: np.copyto(target, source), times)
        for _ in range(_REPEATS)
    ]


def _products() -> list[float]:
    left, right = (np.ones((_SIDE, _SIDE), np.float32) for _ in range(2))
    product, times = np.zeros((_SIDE, _SIDE), np.float32), 20
    took = (_seconds(lambda: np.matmul(left, right, out=product), times) for _ in range(_REPEATS))
    return [2e-9 * _SIDE**3 * times / one for one in took]


def _seconds(work: Callable[[], object], times: int) -> float:
    """Of the thread, for so many repetitions after a first."""
    work()
    started = time.thread_time()
    for _ in range(times):
        work()
    return time.thread_time() - started


if __name__ == "__main__":
    print(msgspec.json.encode(_probe()).decode())
