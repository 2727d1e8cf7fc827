"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

_PACKAGES = ("numpy", "numba", "faiss-cpu", "fastapi", "uvicorn", "msgspec", "asyncpg")


class Machine(msgspec.Struct, frozen=True):
    """The machine and what was installed; `load` is the 1-minute load average at the start.

    A load that is near or above `cores` before anything was measured means that others were using
    the machine: trust ratios then, not times.
    """

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float
    packages: dict[str, str]


def describe() -> Machine:
    """This machine, now."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gib=round(pages * size / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        packages={name: version(name) for name in _PACKAGES},
    )


def _processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
