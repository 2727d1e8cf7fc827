"""`adscent lab late-clicks`: clicks that come after their impression was learned as not clicked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import track

from jobs.bench.machine import describe
from jobs.lab.ablation import FEATURES, MARKETS, AblationReport, Drawn, Found, markets, show
from jobs.output import check_separate, write_report
from models.constraints import project
from models.features import Schema, load_schema
from models.offset import genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Batch, Bools, Float64s, join_batches

DELAY: Final = 2
"""A late click comes with the chunk that is so many after its impression's."""


def run(share: float, seeds: int, events: int, report: Path | None) -> int:
    """Train `seeds` markets with that share of clicks late; print a table, write the report.

    Returns 0. Raises `ReportUnwritable` for the features file as a report, and at the end.
    """
    check_separate({"the features file": FEATURES}, report=report)
    console = Console()
    names = ("none late", f"{share:.0%} late, lost", f"{share:.0%} late, learned when they come")
    drawn = markets(load_schema(FEATURES), seeds, events)
    found = compared(names, share, track(drawn, "seeds", total=seeds, console=console))
    made = AblationReport(
        kind="lab late-clicks",
        machine=describe(),
        data=MARKETS,
        label="clicked",
        seeds=seeds,
        events=found.events,
        rows=found.rows(pooled=False),
    )
    show(made, console)
    write_report(report, made)
    return 0


def compared(names: Sequence[str], share: float, seeds: Iterable[Drawn]) -> Found:
    """The three ways on every market, each chunk scored with all its clicks before learning it."""
    found = Found(names)
    for schema, chunks in seeds:
        label = np.concatenate([chunk.label for chunk in chunks]).astype(np.float64)
        late = [_late(chunk, share, schema.model.seed, n) for n, chunk in enumerate(chunks)]
        none = [np.zeros(len(chunk), np.bool_) for chunk in chunks]
        ways = ((none, False), (late, False), (late, True))
        predicted = [progressive(chunks, schema, rows, learns=learns) for rows, learns in ways]
        found.add(label, dict(zip(names, predicted, strict=True)))
    return found


def _late(chunk: Batch, share: float, seed: int, number: int) -> Bools:
    drawn = np.random.default_rng((seed, number)).random(len(chunk)) < share
    return np.asarray(drawn & (chunk.label > 0))


def progressive(
    chunks: Sequence[Batch], schema: Schema, late: Sequence[Bools], *, learns: bool
) -> Float64s:
    """The published pCTR of every event before its chunk is learned: float64 [n].

    `late`: which of each chunk's clicks come `DELAY` chunks after their impression, which is
    learned as not clicked; `learns`: whether it is learned once more when they come.
    """
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    settings = TrainerSettings.of(schema)
    predicted = []
    for number, chunk in enumerate(chunks):
        model, _ = project(state, settings.radii, schema)
        predicted.append(sigmoid(model.score(chunk.user, chunk.ad)))
        events = replace(chunk, label=np.where(late[number], 0, chunk.label).astype(np.float32))
        if learns and number >= DELAY:
            come = chunks[number - DELAY].take(np.flatnonzero(late[number - DELAY]))
            events = join_batches(come, events)
        state = train(state, events, schema, settings).state
    return np.concatenate(predicted)
