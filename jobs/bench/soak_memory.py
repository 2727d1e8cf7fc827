"""The memory of each process of a deployment, looked at every few seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.report import Measure, Target, measure
from jobs.bench.resident import smaps

FLAT: Target = ("ratio at most", 1.05)
_PAGE = 4096


class Memory:
    """`processes`: by name, the ids of what is looked at together.

    Of one it is what is resident. Of several it is the share of each (PSS), since they map the
    same; without shared memory, which PostgreSQL fills up to the fixed size of its buffers.
    """

    def __init__(self, processes: Callable[[], Mapping[str, Sequence[int]]]) -> None:
        self._processes = processes
        self._times: dict[str, list[float]] = {}
        self._bytes: dict[str, list[float]] = {}

    async def watch(self, every_s: float) -> None:
        """Look until cancelled. Raises `BenchmarkBroken` when one of them has ended."""
        while True:
            for name, pids in self._processes().items():
                self._bytes.setdefault(name, []).append(_size(name, pids))
                self._times.setdefault(name, []).append(time.monotonic())
            await asyncio.sleep(every_s)

    def measures(self) -> dict[str, Measure]:
        """Of each name the last third of the time against the first."""
        return {f"memory_{name}": self._measure(name) for name in self._bytes}

    def _measure(self, name: str) -> Measure:
        found = [size / 1e6 for size in self._bytes[name]]
        third = max(1, len(found) // 3)
        slope = _slope(self._times[name], found)
        about = (
            f"resident memory of {name}, median of the last third of the time; baseline: of the"
            f" first third; highest {max(found):.0f} MB, slope of all {slope:+.1f} MB an hour"
        )
        last, first = median(found[-third:]), median(found[:third])
        return measure([last], "MB", about, baseline=[first], target=FLAT)


def _slope(times_s: Sequence[float], sizes: Sequence[float]) -> float:
    """The least-squares slope by the hour."""
    if len(times_s) < 2:
        return 0.0
    return float(np.polyfit(np.array(times_s) / 3600, np.array(sizes), 1)[0])


def _size(name: str, pids: Sequence[int]) -> float:
    if len(pids) > 1:
        return float(sum(map(_share, pids)))
    try:
        return _PAGE * float(Path(f"/proc/{pids[0]}/statm").read_text().split()[1])
    except OSError as error:
        raise BenchmarkBroken(f"{name} has ended") from error


def _share(pid: int) -> int:
    try:
        found = smaps(pid)
        return found["Pss"] - found["Pss_Shmem"]
    except OSError:
        return 0  # a session that has just ended
