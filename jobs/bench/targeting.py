"""`adscent bench targeting`: which of 300,000 ads with five rules each a request may see."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from app.serving.eligibility import Eligibility
from app.serving.flights import ALWAYS_MS, NEVER_MS
from app.serving.targeting import Targets
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, measure, show, write
from models.types import Clause, FeatureValue, Int64s, Targeting

TARGET_US = 200.0
_USER = Mapping[str, FeatureValue]
_VOCABULARY = {"geo": 50, "device": 3, "interest": 40, "placement": 20}
_OLDEST, _WIDEST = 90, 30
_NOW_MS, _DAY_MS = 1_790_000_000_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """Ads, requests of a round, rounds, ads of one change, and changes before the last one."""

    ads: int
    requests: int
    rounds: int
    changed: int
    changes: int


FULL = Sizes(ads=300_000, requests=2_000, rounds=5, changed=50, changes=20)
QUICK = Sizes(ads=30_000, requests=500, rounds=3, changed=50, changes=20)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0."""
    console = Console()
    chosen = sizes or (QUICK if quick else FULL)
    machine = describe()
    random = np.random.default_rng(seed)
    with console.status(f"drawing {chosen.ads:,} ads"):
        drawn = [_targeting(random) for _ in range(chosen.ads)]
        users = [_user(random) for _ in range(chosen.requests)]
    with console.status("measuring"):
        found = _measures(random, drawn, users, chosen)
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "rules": 5, "ads": chosen.ads}
    made = Report("bench targeting", FORMAT, machine, settings, found)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


def _measures(
    random: np.random.Generator, drawn: list[Targeting], users: list[_USER], sizes: Sizes
) -> dict[str, Measure]:
    compiling, targets = _timed(lambda: Targets.of(drawn))
    flights = _flights(random, sizes.ads)
    first = _microseconds(_eligibility(targets, flights), users)
    found = _mask_measures("mask", _eligibility(targets, flights), users, sizes.rounds)
    moving, _ = _timed(lambda: targets.reordered(sizes.ads, random.permutation(sizes.ads)))
    changing, changed = [], targets
    for _ in range(sizes.changes):
        rows = random.permutation(sizes.ads)[: sizes.changed]
        taken, changed = _timed(_change(changed, rows, drawn))
        changing.append(1000 * taken)
    found |= _mask_measures(
        "mask_changed", _eligibility(changed, flights), users, sizes.rounds, target=False
    )
    merging, _ = _timed(_change(changed, random.permutation(sizes.ads)[: sizes.ads // 16], drawn))
    return found | {
        "mask_first": measure(
            [float(np.mean(first))],
            "µs",
            f"mean over the first {len(users):,} requests, which make the bitmaps of their values",
        ),
        "change": measure(changing, "ms", f"{sizes.changed} ads get other rules"),
        "merge": measure(
            [merging],
            "s",
            f"{sizes.ads // 16:,} ads get other rules at once, so that all are one layer again",
        ),
        "move": measure([moving], "s", "every row moves, as with a new snapshot; stays warm"),
        "compile": measure([compiling], "s", "all rules from nothing, at the start of a worker"),
    }


def _mask_measures(
    name: str, eligibility: Eligibility, users: list[_USER], rounds: int, target: bool = True
) -> dict[str, Measure]:
    """The median and the 99th percentile of the requests of each round, once warm."""
    _microseconds(eligibility, users)
    taken = [_microseconds(eligibility, users) for _ in range(rounds)]
    about = f"state, flight and targeting of every ad, {len(users):,} requests a round"
    return {
        f"{name}_{label}": measure(
            [float(np.quantile(one, share)) for one in taken],
            "µs",
            about,
            target=("value at most", TARGET_US) if target else None,
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    }


def _change(targets: Targets, rows: Int64s, drawn: list[Targeting]) -> Callable[[], Targets]:
    return lambda: targets.replaced(targets.size, rows, [drawn[row] for row in rows[::-1].tolist()])


def _timed(call: Callable[[], Targets]) -> tuple[float, Targets]:
    """Seconds, and what the call made."""
    started = time.perf_counter()
    made = call()
    return time.perf_counter() - started, made


def _microseconds(eligibility: Eligibility, users: list[_USER]) -> list[float]:
    taken = []
    for user in users:
        started = time.perf_counter()
        eligibility.mask(user, _NOW_MS)
        taken.append(1e6 * (time.perf_counter() - started))
    return taken


def _eligibility(targets: Targets, flights: tuple[Int64s, Int64s]) -> Eligibility:
    active = np.zeros(targets.size, np.uint8)
    return Eligibility(active, active, active, *flights, targets)


def _flights(random: np.random.Generator, ads: int) -> tuple[Int64s, Int64s]:
    """Half of the ads have a flight of some weeks around now."""
    days = _NOW_MS + _DAY_MS * random.integers(-20, 20, ads)
    timed = random.random(ads) < 0.5
    return np.where(timed, days, ALWAYS_MS), np.where(timed, days + 20 * _DAY_MS, NEVER_MS)


def _targeting(random: np.random.Generator) -> Targeting:
    """Five rules: three that must be met, one of which is a range, one of `any`, one of `none`."""
    youngest = int(random.integers(0, _OLDEST - _WIDEST // 2))
    age = Clause("user.age", minimum=float(youngest), maximum=float(youngest + _WIDEST))
    return Targeting(
        all=(_values(random, "geo", 5), _values(random, "device", 2), age),
        any=(_values(random, "interest", 6),),
        none=(_values(random, "placement", 2),),
    )


def _values(random: np.random.Generator, name: str, most: int) -> Clause:
    listed = random.permutation(_VOCABULARY[name])[: random.integers(1, most + 1)]
    return Clause(f"user.{name}", tuple(map(str, listed.tolist())))


def _user(random: np.random.Generator) -> _USER:
    values: dict[str, FeatureValue] = {
        name: str(random.integers(count)) for name, count in _VOCABULARY.items()
    }
    interests = random.permutation(_VOCABULARY["interest"])[: random.integers(0, 4)]
    values["interest"] = [str(one) for one in interests.tolist()]
    values["age"] = int(random.integers(15, _OLDEST))
    return values
