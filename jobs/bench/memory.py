"""`adscent bench memory`: bytes a feature value, millions of values, and turnover without a leak.

Each is measured in a child process of its own. Snapshots are written to the folder for temporary
files (`TMPDIR`), which needs room for two of them: 7 GB at full size.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import msgspec
from rich.console import Console

from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.invented import schema_of
from jobs.bench.machine import describe
from jobs.bench.many_values import Built, Learned, Size
from jobs.bench.report import FORMAT, Measure, Report, Setting, measure, show, write
from jobs.bench.turnover import Course, Passed
from models.vocabulary import published_bytes, row_bytes

PROCESS_GB = 0.5
"""Of the limit, what a process and its chunk may take however few values there are."""
LIMIT_GB = 8.0
_FULL = 10_000_000
_GB = 1e9
_LAST = 10
"""Chunks whose median is a level: memory moves a little from chunk to chunk."""
_ROOT = Path(__file__).resolve().parents[2]
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""Keeps glibc at its first threshold for blocks of their own, which go back when they are freed.

Left to itself it raises the threshold, once, at a chunk that depends on sizes, and its heap then
keeps some 20 MB of freed room: no leak, but it would hide one of that size.
"""
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `settled`: the chunk of the course that its end is compared with."""

    values: Size
    course: Course
    settled: int


FULL = Sizes(
    values=Size(user_values=9_750_000, ad_values=250_000, events=1_000_000, ads=10_000),
    course=Course(),
    settled=100,
)
QUICK = Sizes(
    values=Size(user_values=975_000, ad_values=25_000, events=100_000, ads=10_000),
    course=Course(60, events=1000, users=5000, ads=500, life_h=10, paused_h=3, ttl_h=8.0),
    settled=30,
)


def run(report: Path | None, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` when a child process ends with an error.
    """
    console = Console()
    chosen = sizes or (QUICK if quick else FULL)
    machine = describe()
    with tempfile.TemporaryDirectory(prefix="adscent-bench-") as folder:
        with console.status(f"{chosen.values.user_values + chosen.values.ad_values:,} values"):
            found = _value_measures(Path(folder, "values"), chosen.values)
        with console.status(f"{chosen.course.chunks} chunks of turnover"):
            found |= _turnover_measures(Path(folder, "turnover"), chosen)
    settings: dict[str, Setting] = {"quick": quick} | msgspec.to_builtins(chosen.values)
    settings |= {"chunks": chosen.course.chunks, "settled": chosen.settled}
    made = Report("bench memory", FORMAT, machine, settings, found)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


def _child(kind: type[_Found], module: str, *arguments: str) -> _Found:
    command = [sys.executable, "-m", f"jobs.bench.{module}", *arguments]
    done = subprocess.run(  # noqa: S603 - our own module
        command, cwd=_ROOT, env=os.environ | _ALLOCATOR, capture_output=True, check=False
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkBroken(f"{module} ended with {done.returncode}: {''.join(last)}")
    return msgspec.json.decode(done.stdout, type=kind)


def _value_measures(folder: Path, size: Size) -> dict[str, Measure]:
    given = msgspec.json.encode(size).decode()
    built = _child(Built, "many_values", "build", str(folder), given)
    learned = _child(Learned, "many_values", "learn", str(folder), given)
    return _row_measures(built) | _peak_measures(size, learned)


def _row_measures(built: Built) -> dict[str, Measure]:
    schema = schema_of(0)
    sides = (
        ("user", built.user_bytes / built.user_values, schema.user_width),
        ("ad", built.ad_bytes / built.ad_values, schema.dimensions),
    )
    return {
        f"{side}_value": measure(
            [found],
            "bytes",
            f"private memory that a {side} value takes in the trainer's state, vectors of {width};"
            " baseline: what its arrays are stated to take",
            baseline=[float(row_bytes(width))],
            target=("ratio at most", 1.05),
        )
        for side, found, width in sides
    }


def _peak_measures(size: Size, learned: Learned) -> dict[str, Measure]:
    values = size.user_values + size.ad_values
    limit = PROCESS_GB + (LIMIT_GB - PROCESS_GB) * values / _FULL
    about = (
        f"{learned.user_values + learned.ad_values:,} values: load, learn {size.events:,} events,"
        f" publish with {size.ads:,} ads, write; and again from what was written"
    )
    stated = _stated_gb(learned)
    return {
        "peak": measure(
            [learned.highest / _GB],
            "GB",
            f"most memory resident at once, as the kernel counts it. {about}",
            target=("value at most", limit),
        ),
        "peak_mapped": measure(
            [learned.peak.mapped / _GB],
            "GB",
            "of it pages of the incumbent's files, which the kernel takes back when it must",
        ),
        "most_private": measure(
            [learned.most_private / _GB], "GB", "most private memory at once, which it cannot"
        ),
        "state": _arrays_measure(learned.state_bytes, stated[0], "the trainer's state"),
        "served": _arrays_measure(learned.model_bytes, stated[1], "the served model"),
        "load": measure([learned.load_s], "s", "the snapshot's files checked and mapped"),
        "learn": measure([learned.learn_s], "s", "`cycle.learn` on the second chunk"),
        "write": measure([learned.write_s], "s", "the snapshot written and flushed"),
    }


def _stated_gb(learned: Learned) -> tuple[float, float]:
    """What the state and the model are stated to take."""
    schema, users, ads = schema_of(0), learned.user_values, learned.ad_values
    width, dimensions = schema.user_width, schema.dimensions
    state = users * row_bytes(width) + ads * row_bytes(dimensions)
    served = users * published_bytes(width, user=True) + ads * published_bytes(
        dimensions, user=False
    )
    return state / _GB, served / _GB


def _arrays_measure(found: int, stated: float, what: str) -> Measure:
    about = f"the arrays of {what}; baseline: stated"
    return measure([found / _GB], "GB", about, baseline=[stated])


def _turnover_measures(folder: Path, sizes: Sizes) -> dict[str, Measure]:
    course, settled = sizes.course, sizes.settled
    passed = _child(Passed, "turnover", str(folder), msgspec.json.encode(course).decode())
    rows = [float(count) for count in passed.rows]
    held = [count / _GB for count in passed.resident]
    about = f"after {course.chunks} chunks of turnover; baseline: after {settled}"
    return {
        "turnover_rows": _levels(rows, settled, "values", f"rows of both tables {about}"),
        "turnover_resident": _levels(held, settled, "GB", f"resident memory {about}"),
        "turnover_collected": measure(
            [float(passed.collected)], "values", "values dropped on the way"
        ),
    }


def _levels(found: list[float], settled: int, unit: str, about: str) -> Measure:
    early, late = median(found[settled - _LAST : settled]), median(found[-_LAST:])
    return measure([late], unit, about, baseline=[early], target=("ratio at most", 1.05))
