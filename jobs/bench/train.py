"""`adscent bench train`: the kernel alone, and a chunk from the database to a snapshot."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from jobs.bench import vowpal
from jobs.bench.chunk import chunk_measures
from jobs.bench.deployment import deployed
from jobs.bench.kernel import KERNEL_TARGET, first_call_measures, kernel_measures
from jobs.bench.limit import limit_measures
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, show, write
from jobs.bench.shapes import Widths, draw, schema_of
from jobs.market import Market

__all__ = ["FEATURES", "KERNEL_TARGET", "QUICK", "Sizes", "run"]
SHAPES: tuple[Widths, ...] = ((6, 4, 4), (6, 8, 8), (10, 4, 4))
FEATURES = Path(__file__).resolve().parents[2] / "features.toml"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `shapes`: K, overlap and alone of the kernels: D = 84, 168 and 220."""

    ads: int = 2_000
    kernel_events: int = 500_000
    kernel_rounds: int = 9
    chunk_events: int = 1_000_000
    chunk_rounds: int = 3
    shapes: tuple[Widths, ...] = field(default=SHAPES)


QUICK = Sizes(kernel_events=200_000, kernel_rounds=5, chunk_events=200_000, chunk_rounds=1)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` when a training run does not end as it should.
    """
    console = Console()
    chosen = sizes or (QUICK if quick else Sizes())
    machine = describe()
    measured = _measured(chosen, seed, console)
    settings: dict[str, Setting] = {
        "seed": seed,
        "quick": quick,
        "ads": chosen.ads,
        "kernel_events": chosen.kernel_events,
        "chunk_events": chosen.chunk_events,
    }
    made = Report("bench train", FORMAT, machine, settings, measured)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


def _measured(sizes: Sizes, seed: int, console: Console) -> dict[str, Measure]:
    with console.status("the kernel alone"):
        market = Market(seed, sizes.ads)
        found = kernel_measures(market, sizes.kernel_events, sizes.kernel_rounds, sizes.shapes)
    with console.status("what the machine allows, and Vowpal Wabbit"):
        found |= _compared(market, sizes, found, console)
    with console.status("the first call of a new process"):
        found |= first_call_measures(sizes.shapes[0])
    with console.status(f"chunks of {sizes.chunk_events:,} events"):
        found |= asyncio.run(_chunks(sizes, seed))
    return found


def _compared(
    market: Market, sizes: Sizes, kernels: dict[str, Measure], console: Console
) -> dict[str, Measure]:
    """The first shape's kernel against the machine's limits and another learner."""
    widths = sizes.shapes[0]
    drawn = draw(market, sizes.kernel_events, widths)
    found = limit_measures(kernels, drawn, widths)
    if not vowpal.is_installed():
        console.print(vowpal.HINT)
        return found
    kernel = kernels[f"kernel_d{schema_of(widths).dimensions}"]
    return found | vowpal.vowpal_measures(kernel, drawn, sizes.kernel_rounds // 3 or 1)


async def _chunks(sizes: Sizes, seed: int) -> dict[str, Measure]:
    events, rounds = sizes.chunk_events, sizes.chunk_rounds
    drawn = events * (rounds + 1) + max(events // 5, 100)
    async with deployed(seed, sizes.ads, drawn, FEATURES) as deployment:
        return await chunk_measures(deployment, events, rounds)
