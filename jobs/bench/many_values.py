"""Child processes of `bench memory`: a state of millions of values is built, then learns on.

    python -m jobs.bench.many_values build|learn FOLDER SIZE_AS_JSON

Each prints one line of JSON.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from jobs.bench.invented import USER_COUNTS, ad_counts, catalog, events, keys_of, schema_of
from jobs.bench.resident import Resident, Watch, highest, resident
from models import snapshot
from models.cycle import genesis_snapshot, learn
from models.features import Schema
from models.index import AdSet
from models.interactions import INITIAL_SCALE
from models.offset import Model, Table, empty_table
from models.priors import first_rows, normals
from models.snapshot import Snapshot
from models.trainer import TrainerSettings
from models.types import ROWS_AT_ONCE, Batch, in_slices

TTL_DAYS = 30.0
UNSEEN = 0.02
"""Share of the values that the first chunk finds unseen for longer than the TTL."""
NEW_USERS = 0.2
"""Share of a chunk's events whose user was never seen."""
_DAY_MS = 86_400_000
_START_MS = 1_790_000_000_000


class Size(msgspec.Struct, frozen=True):
    """How many values of either side, events of a chunk, and ads in the catalog."""

    user_values: int
    ad_values: int
    events: int
    ads: int


class Built(msgspec.Struct, frozen=True):
    """Rows of either table, and the private bytes that appeared while it was filled."""

    user_values: int
    ad_values: int
    user_bytes: int
    ad_bytes: int


class Learned(msgspec.Struct, frozen=True):
    """Of the process that learned two chunks, the second from the snapshot of the first.

    `highest`: most bytes resident at once, by the kernel; `peak`: what they were, by looking every
    few ms; `before`: before anything was read; values and bytes of arrays: of the last snapshot;
    `collected`: values dropped; seconds of the last load, cycle and write.
    """

    highest: int
    peak: Resident
    most_private: int
    before: Resident
    user_values: int
    ad_values: int
    state_bytes: int
    model_bytes: int
    collected: int
    load_s: float
    learn_s: float
    write_s: float


@dataclass(frozen=True, slots=True)
class _Took:
    learn_s: float
    write_s: float
    collected: int


def build(folder: Path, size: Size) -> Built:
    """Fill a state, pass it through one small cycle, write the snapshot to begin with."""
    schema = schema_of(TTL_DAYS)
    ids = max(size.user_values - sum(USER_COUNTS), 1)
    _table((ROWS_AT_ONCE,), schema.user_width, 0)  # what the work itself takes
    held = [resident().private]
    user = _table((*USER_COUNTS, ids), schema.user_width, 0)
    held.append(resident().private)
    ad = _table(ad_counts(size.ad_values), schema.dimensions, len(USER_COUNTS) + 1)
    held.append(resident().private)
    ads = _ads(size)
    genesis = genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=0)
    full = replace(genesis, state=replace(genesis.state, user=user, ad=ad))
    few = msgspec.structs.replace(size, events=min(size.events, 1000))
    _cycle(folder, full, _chunk(few, 0), ads, schema)
    return Built(len(user), len(ad), held[1] - held[0], held[2] - held[1])


def learn_on(folder: Path, size: Size) -> Learned:
    """Load, learn, publish, write; and once more from what was written."""
    schema, ads, before = schema_of(TTL_DAYS), _ads(size), resident()
    with Watch() as watch:
        rounds = [_round(folder, number, size, ads, schema) for number in (2, 3)]
    last = snapshot.load(folder / str(UUID(int=4)))
    load_s, took = rounds[-1]
    return Learned(
        highest=highest(),
        peak=watch.peak,
        most_private=watch.most_private,
        before=before,
        user_values=len(last.state.user),
        ad_values=len(last.state.ad),
        state_bytes=bytes_of(last.state.user) + bytes_of(last.state.ad),
        model_bytes=sum(getattr(last.model, item.name).nbytes for item in _arrays(last.model)),
        collected=sum(each.collected for _, each in rounds),
        load_s=load_s,
        learn_s=took.learn_s,
        write_s=took.write_s,
    )


def bytes_of(table: Table) -> int:
    """Bytes of all arrays."""
    return sum(getattr(table, name).nbytes for name in Table.__slots__)


def _arrays(model: Model) -> list[Any]:
    return [item for item in fields(model) if isinstance(getattr(model, item.name), np.ndarray)]


def _round(
    folder: Path, number: int, size: Size, ads: AdSet, schema: Schema
) -> tuple[float, _Took]:
    """One process's work on a chunk, and the seconds of loading; what it began with is deleted."""
    parent, started = folder / str(UUID(int=number)), time.perf_counter()
    incumbent = snapshot.load(parent)
    load_s = time.perf_counter() - started
    took = _cycle(folder, incumbent, _chunk(size, number), ads, schema)
    shutil.rmtree(parent)
    return load_s, took


def _cycle(folder: Path, incumbent: Snapshot, chunk: Batch, ads: AdSet, schema: Schema) -> _Took:
    number, now_ms = incumbent.manifest.id.int + 1, int(chunk.time_ms.max())
    ids, started = (UUID(int=number), UUID(int=0)), time.perf_counter()
    settings = TrainerSettings.of(schema)
    outcome = learn(incumbent, chunk, ads, schema, settings, snapshot_ids=ids, now_ms=now_ms)
    learned = time.perf_counter()
    if len(outcome.attempts) > 1:
        reasons = "; ".join(outcome.attempts[0].verdict.reasons)
        raise SystemExit(f"the gate refused chunk {number}: {reasons}")
    snapshot.write(folder, outcome.candidate)
    metrics = outcome.candidate.manifest.metrics
    collected = sum(int(metrics[f"collected_{side}_values"] or 0) for side in ("user", "ad"))
    return _Took(learned - started, time.perf_counter() - learned, collected)


def _table(counts: tuple[int, ...], width: int, first: int) -> Table:
    """Rows of values 0 … count − 1 of the features `first` and those after it, as after births."""
    scale = 0.0 if first else INITIAL_SCALE
    feature = np.repeat(np.arange(len(counts)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    made = _empty(len(number), width)
    for some in in_slices(len(number)):
        keys = keys_of(0, number[some] + ((first + feature[some]) << 40))
        born = first_rows(keys, feature[some], normals(keys, width, 1) * scale)
        for name in Table.__slots__:
            getattr(made, name)[some] = getattr(born, name)
    made.touched_ms[:] = _START_MS - _DAY_MS
    unseen = np.random.default_rng(first).random(len(made)) < UNSEEN
    made.touched_ms[unseen] = _START_MS - int((TTL_DAYS - 0.5) * _DAY_MS)
    return made


def _empty(rows: int, width: int) -> Table:
    shapes = ((getattr(empty_table(width), name), name) for name in Table.__slots__)
    return Table(**{name: np.empty((rows, *like.shape[1:]), like.dtype) for like, name in shapes})


def _chunk(size: Size, number: int) -> Batch:
    """A day after the one before it; some of its users are new."""
    random = np.random.default_rng(number)
    known = max(size.user_values - sum(USER_COUNTS), 1)
    users = random.integers(0, known, size.events)
    new = random.random(size.events) < NEW_USERS
    users[new] = known * number + random.integers(0, known, int(new.sum()))
    creatives = random.integers(0, ad_counts(size.ad_values)[0], size.events)
    return events(random, _START_MS + number * _DAY_MS, users, creatives)


def _ads(size: Size) -> AdSet:
    return catalog(np.arange(min(size.ads, ad_counts(size.ad_values)[0])))


def main(mode: str, folder: str, size: str) -> None:
    """Run one of the two and print what it found."""
    work = {"build": build, "learn": learn_on}[mode]
    found = work(Path(folder), msgspec.json.decode(size, type=Size))
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
