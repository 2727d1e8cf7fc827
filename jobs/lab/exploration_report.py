"""What a comparison of ways to try new ads found: policies, runs, the report and its table.

A new ad is *good* if an auction that knew every true click probability would show it at least
`GOOD` times during the run; what that auction shows of it is its fair share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from jobs.bench.machine import Machine, describe
from models.exploration import Rule
from models.types import Float64s, Int64s

FORMAT: Final = 1
GOOD: Final = 60
"""Fair impressions of a new ad that is called good."""
_FAIR_PART = 0.5
_WINDOW = 5


@dataclass(frozen=True, slots=True)
class Policy:
    """How new ads are tried: by which rule (None: not at all) in which share of all slots."""

    rule: Rule | None
    share: float = 0.0

    @property
    def name(self) -> str:
        """As the table has it."""
        return "none" if self.rule is None else f"{self.rule} {100 * self.share:g} %"


@dataclass(frozen=True, slots=True)
class Sizes:
    """A run: live ads at its start, days, steps of training, requests of a step, slots of a page,
    impressions that the first model has learned from."""

    ads: int = 1_000
    days: float = 7.0
    steps: int = 84
    requests: int = 500
    slots: int = 3
    learned: int = 60_000


class Row(msgspec.Struct, frozen=True):
    """One policy, means over the seeds with half of a 95 % interval.

    `explored`: share of the slots; `fair_share`: what good new ads got of their fair impressions in
    the first fifth of the run after their birth; `reached`: share of them that came to half of
    their fair share over five steps before the end; `hours`: mean hours until then, up to the run's
    end for those that did not; `value`: true eCPM of all that was shown, relative to no
    exploration; `revenue`: the same of what was charged; `late_value`: of the last third alone.
    """

    policy: str
    explored: float
    fair_share: tuple[float, float]
    reached: tuple[float, float]
    hours: tuple[float, float]
    value: tuple[float, float]
    revenue: tuple[float, float]
    late_value: tuple[float, float]


class ExplorationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `adscent lab exploration` found."""

    machine: Machine
    seeds: int
    impressions: int
    good_ads: int
    rows: tuple[Row, ...]
    kind: str = "lab exploration"
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Run:
    """What one policy did in one market.

    `shown` and `fair`: int64 [steps, ads], impressions by policy and oracle; `value` and `charged`:
    float64 [steps], micros; `explored`: how many slots.
    """

    shown: Int64s
    fair: Int64s
    value: Float64s
    charged: Float64s
    explored: int


def report_of(
    found: Sequence[Sequence[Run]], policies: Sequence[Policy], sizes: Sizes
) -> ExplorationReport:
    """`found`: the runs of each market, by policy, the first of which does not explore."""
    good = [_good(runs[0], sizes) for runs in found]
    rows = [
        _row(policy, [runs[at] for runs in found], [runs[0] for runs in found], good, sizes)
        for at, policy in enumerate(policies)
    ]
    return ExplorationReport(
        machine=describe(),
        seeds=len(found),
        impressions=int(sum(runs[0].shown.sum() for runs in found)),
        good_ads=sum(map(len, good)),
        rows=tuple(rows),
    )


def _good(run: Run, sizes: Sizes) -> Int64s:
    """The good new ads: born in the run's first half."""
    is_later = np.arange(run.fair.shape[1]) >= sizes.ads
    is_early = (run.fair > 0).argmax(axis=0) < sizes.steps // 2
    found: Int64s = np.flatnonzero(is_later & is_early & (run.fair.sum(axis=0) >= GOOD))
    return found


def _row(policy: Policy, runs: list[Run], base: list[Run], good: list[Int64s], sizes: Sizes) -> Row:
    """One policy's runs, a market each, beside those of the policy that does not explore."""
    lived = [(run, ads) for run, ads in zip(runs, good, strict=True) if len(ads)]
    waits = [np.array([_wait(run, ad) for ad in ads.tolist()]) for run, ads in lived]
    hours = 24 * sizes.days / sizes.steps
    late = 2 * sizes.steps // 3
    pairs = list(zip(runs, base, strict=True))
    return Row(
        policy=policy.name,
        explored=sum(run.explored for run in runs) / sum(int(run.shown.sum()) for run in runs),
        fair_share=_mean([_share(run, ads, sizes) for run, ads in lived]),
        reached=_mean([float(each[:, 1].mean()) for each in waits]),
        hours=_mean([hours * float(each[:, 0].mean()) for each in waits]),
        value=_mean([run.value.sum() / none.value.sum() for run, none in pairs]),
        revenue=_mean([run.charged.sum() / none.charged.sum() for run, none in pairs]),
        late_value=_mean([run.value[late:].sum() / none.value[late:].sum() for run, none in pairs]),
    )


def _wait(run: Run, ad: int) -> tuple[int, bool]:
    """Steps from its first fair impression until it has half its fair share over some steps, or
    until the end; and whether it came to that."""
    born = int((run.fair[:, ad] > 0).argmax())
    shown, fair = (
        np.convolve(each[born:, ad], np.ones(_WINDOW), "valid") for each in (run.shown, run.fair)
    )
    there = np.flatnonzero((fair > 0) & (shown >= _FAIR_PART * fair))
    return (int(there[0]), True) if len(there) else (len(fair), False)


def _share(run: Run, good: Int64s, sizes: Sizes) -> float:
    """What good new ads got of their fair impressions early in their lives."""
    got = due = 0
    for ad in good.tolist():
        born = int((run.fair[:, ad] > 0).argmax())
        early = slice(born, born + sizes.steps // 5)
        got += int(np.minimum(run.shown[early, ad], run.fair[early, ad]).sum())
        due += int(run.fair[early, ad].sum())
    return got / max(due, 1)


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean and half of its 95 % interval; 0 for no market."""
    if not values:
        return 0.0, 0.0
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), 1.96 * spread / len(values) ** 0.5


def show(made: ExplorationReport, console: Console) -> None:
    """Print the report as a table, in per cent but for the hours."""
    title = f"{made.seeds} markets, {made.impressions:,} impressions, {made.good_ads} good new ads"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    heads = ("policy", "tried", "fair", "reached", "hours", "value", "revenue", "late")
    for name in heads:
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for row in made.rows:
        table.add_row(
            row.policy,
            f"{100 * row.explored:.2f}",
            *(_cell(each) for each in (row.fair_share, row.reached)),
            f"{row.hours[0]:.1f}±{row.hours[1]:.1f}",
            *(_cell(each) for each in (row.value, row.revenue, row.late_value)),
        )
    console.print(table)


def _cell(figure: tuple[float, float]) -> str:
    """In per cent."""
    return f"{100 * figure[0]:.1f}±{100 * figure[1]:.1f}"
