"""Child process of `bench memory`: users and ads come and go, chunk after chunk.

    python -m jobs.bench.turnover FOLDER COURSE_AS_JSON

Each chunk is learned from the snapshot on disk and written beside it, as the jobs process does.
Prints one line of JSON: rows and resident memory after each chunk.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np

from jobs.bench.invented import catalog, events, schema_of
from jobs.bench.resident import resident
from models import snapshot
from models.cycle import genesis_snapshot, learn
from models.features import Schema
from models.index import AdSet
from models.trainer import TrainerSettings
from models.types import Batch, Int64s

_HOUR_MS = 3_600_000
_START_MS = 1_790_000_000_000


class Course(msgspec.Struct, frozen=True):
    """What happens in so many hours, a chunk of `events` each.

    Of the `users` and the `ads` alive at once one in `life_h` leaves each hour and another comes.
    An ad that leaves is paused for `paused_h`, then retired. `ttl_h`: the TTL.
    """

    chunks: int = 500
    events: int = 4000
    users: int = 20_000
    ads: int = 2_000
    life_h: int = 25
    paused_h: int = 10
    ttl_h: float = 24.0

    def alive(self, hour: int, at_once: int, longer_h: int = 0) -> Int64s:
        """The numbers of what is alive at an hour, or left at most `longer_h` before."""
        hourly = at_once // self.life_h
        return np.arange(hourly * max(hour - longer_h, 0), hourly * hour + at_once)


class Passed(msgspec.Struct, frozen=True):
    """After each chunk: rows of both tables, resident bytes; values dropped in all."""

    rows: list[int]
    resident: list[int]
    collected: int


def run(folder: Path, course: Course) -> Passed:
    """Learn the course's chunks, each from the snapshot that the one before it left on disk."""
    schema = schema_of(course.ttl_h / 24)
    genesis = genesis_snapshot(schema, _ads(course, 0), snapshot_id=UUID(int=1), now_ms=0)
    snapshot.write(folder, genesis)
    rows, held, collected = [], [], 0
    for hour in range(course.chunks):
        metrics = _hour(folder, hour, course, schema)
        rows.append(int(metrics["user_values"] + metrics["ad_values"]))
        held.append(resident().total)
        collected += int(metrics["collected_user_values"] + metrics["collected_ad_values"])
    return Passed(rows, held, collected)


def _hour(folder: Path, hour: int, course: Course, schema: Schema) -> dict[str, float]:
    parent = folder / str(UUID(int=hour + 1))
    outcome = learn(
        snapshot.load(parent),
        _chunk(course, hour),
        _ads(course, hour),
        schema,
        TrainerSettings.of(schema),
        snapshot_ids=(UUID(int=hour + 2), UUID(int=0)),
        now_ms=_START_MS + (hour + 1) * _HOUR_MS,
    )
    if len(outcome.attempts) > 1:
        raise SystemExit(f"the gate refused hour {hour}: {outcome.attempts[0].verdict.reasons}")
    snapshot.write(folder, outcome.candidate)
    shutil.rmtree(parent)
    return {name: value or 0.0 for name, value in outcome.candidate.manifest.metrics.items()}


def _chunk(course: Course, hour: int) -> Batch:
    random = np.random.default_rng(hour)
    users = random.choice(course.alive(hour, course.users), course.events)
    creatives = random.choice(course.alive(hour, course.ads), course.events)
    start_ms = _START_MS + hour * _HOUR_MS
    return events(random, start_ms, users, creatives)


def _ads(course: Course, hour: int) -> AdSet:
    """Every ad that is not retired: those that are shown, and those that are paused."""
    listed = course.alive(hour, course.ads, course.paused_h)
    return catalog(listed)


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Course))
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
