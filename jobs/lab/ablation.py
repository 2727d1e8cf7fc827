"""`adscent lab ablation`: the learner without each of its parts, on a log or on seeded markets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jobs.bench.machine import Machine, describe
from jobs.logfile import Log, chunk_ms
from jobs.market import Market
from jobs.market.traffic import batch
from jobs.output import check_separate, write_report
from models.constraints import project
from models.features import Schema, load_schema
from models.metrics import auc, calibration, losses
from models.offset import FIRST_VARIANCE, genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Batch, Float64s

FORMAT: Final = 1
MARKETS: Final = "seeded markets"
FEATURES: Final = Path(__file__).resolve().parents[2] / "features.toml"
Change = Callable[[TrainerSettings], TrainerSettings]


def _fixed(settings: TrainerSettings) -> TrainerSettings:
    shape = settings.shape
    user, ad = ((FIRST_VARIANCE,) * n for n in (shape.user_features, shape.ad_features))
    return replace(settings, user_variance=user, ad_variance=ad)


VARIANTS: Final[dict[str, Change]] = {
    "default": lambda settings: settings,
    "main effects only": lambda settings: replace(settings, initial_scale=0.0),
    "interactions serve in full": lambda settings: replace(settings, weighs_interactions=False),
    "interactions' variances fixed": lambda settings: replace(settings, learns_interactions=False),
    "main effects' variances fixed": _fixed,
    "linear step": lambda settings: replace(settings, step="linear"),
    "AdaGrad": lambda settings: replace(settings, step="adagrad"),
    "published step": lambda settings: replace(settings, step="published"),
    "no constraint": lambda settings: replace(settings, constraint="none"),
    "projection": lambda settings: replace(settings, constraint="projection"),
}
"""What is left out or exchanged; the first one is what all are compared with."""


class Row(msgspec.Struct, frozen=True):
    """One variant, means over seeds. `difference`: its log loss minus the default's, paired.

    `interval`: its 95 % interval. Seeds of a market are markets of their own, so it spans them; on
    a log it spans the events, each event's difference averaged over the seeds. One market or one
    event alone has none. `auc` is None without both clicks and others, `calibration` without a
    click.
    """

    variant: str
    auc: float | None
    log_loss: float
    calibration: float | None
    difference: float
    interval: tuple[float, float] | None


class AblationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `adscent lab ablation` or `adscent lab late-clicks` found."""

    machine: Machine
    data: str
    label: str
    seeds: int
    events: int
    rows: tuple[Row, ...]
    kind: str = "lab ablation"
    format: int = FORMAT


Drawn = tuple[Schema, list[Batch]]


def run(
    log: Path | None,
    features: Path | None,
    label: str,
    chunk: str,
    seeds: int,
    events: int,
    report: Path | None,
) -> int:
    """Run every variant on `log`, or on a market a seed; print a table, write the report.

    `features` None: the market's own schema. Returns 0. Raises `SchemaInvalid` for the features
    file, `LogInvalid` for the log or the chunk's length, `ReportUnwritable` for a report that
    is one of the files read, and at the end.
    """
    path, console = features or FEATURES, Console()
    read = {"the features file": path} | ({} if log is None else {"the log": log})
    check_separate(read, report=report)
    schema = load_schema(path)
    if log is None:
        data, drawn = MARKETS, markets(schema, seeds, events)
    else:
        data, drawn = log.name, _same(_chunks(log, schema, label, chunk), schema, seeds)
    found = ablation(track(drawn, "seeds", total=seeds, console=console))
    made = AblationReport(
        machine=describe(),
        data=data,
        label=label,
        seeds=seeds,
        events=found.events,
        rows=found.rows(pooled=log is not None),
    )
    show(made, console)
    write_report(report, made)
    return 0


def _chunks(log: Path, schema: Schema, label: str, chunk: str) -> list[Batch]:
    with Log(log, schema, label) as opened:
        return [events for _, events in opened.chunks(chunk_ms(chunk))]


def _same(chunks: list[Batch], schema: Schema, seeds: int) -> Iterator[Drawn]:
    for seed in range(1, seeds + 1):
        yield replace(schema, model=replace(schema.model, seed=seed)), chunks


def markets(schema: Schema, seeds: int, events: int, chunks: int = 60) -> Iterator[Drawn]:
    """A market a seed: the schema with that seed, and the market's events cut into chunks."""
    for seed in range(1, seeds + 1):
        drawn, size = batch(Market(seed), events, schema, seed), -(-events // chunks)
        cut = [drawn.rows(start, min(start + size, events)) for start in range(0, events, size)]
        yield replace(schema, model=replace(schema.model, seed=seed)), cut


class Found:
    """The losses of every variant, seed after seed; the first is what all are compared with."""

    def __init__(self, variants: Iterable[str]) -> None:
        self.events = 0
        self._figures: dict[str, list[tuple[float, float, float]]] = {n: [] for n in variants}
        self._differences: dict[str, list[Float64s]] = {n: [] for n in self._figures}

    def add(self, label: Float64s, predicted: dict[str, Float64s]) -> None:
        """Add a seed: labels and each variant's predictions, [n]."""
        self.events = len(label)
        default = losses(predicted[next(iter(self._figures))], label)
        for name, p in predicted.items():
            each = losses(p, label)
            figures = (auc(p, label), float(each.mean()), calibration(p, label))
            self._figures[name].append(figures)
            self._differences[name].append(each - default)

    def rows(self, *, pooled: bool) -> tuple[Row, ...]:
        """The table; `pooled`: all seeds saw the same events."""
        return tuple(self._row(name, pooled) for name in self._figures)

    def _row(self, name: str, pooled: bool) -> Row:
        ranked, loss, calibrated = np.mean(self._figures[name], axis=0).tolist()
        differences = self._differences[name]
        samples = (
            np.mean(differences, axis=0) if pooled else np.array([d.mean() for d in differences])
        )
        mean = float(samples.mean())
        interval = _interval(samples)
        return Row(name, _known(ranked), loss, _known(calibrated), mean, interval)


def _known(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


def _interval(samples: Float64s) -> tuple[float, float] | None:
    """The 95 % interval of the mean of [n] differences; one alone does not say how it varies."""
    if len(samples) < 2:
        return None
    mean, reach = samples.mean(), 1.96 * samples.std(ddof=1) / len(samples) ** 0.5
    return float(mean - reach), float(mean + reach)


def ablation(seeds: Iterable[Drawn]) -> Found:
    """Every variant on every seed's chunks, each chunk scored before it is learned."""
    found = Found(VARIANTS)
    for schema, chunks in seeds:
        label = np.concatenate([chunk.label for chunk in chunks]).astype(np.float64)
        default = TrainerSettings.of(schema)
        predictions = {
            name: progressive(chunks, schema, change(default)) for name, change in VARIANTS.items()
        }
        found.add(label, predictions)
    return found


def progressive(chunks: Sequence[Batch], schema: Schema, settings: TrainerSettings) -> Float64s:
    """The published pCTR of every event before its chunk is learned: float64 [n]."""
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    predicted = []
    for chunk in chunks:
        model, _ = project(state, settings.radii, schema)
        predicted.append(sigmoid(model.score(chunk.user, chunk.ad)))
        state = train(state, chunk, schema, settings).state
    return np.concatenate(predicted)


def show(made: AblationReport, console: Console) -> None:
    """Print the table: each variant's figures and how it differs from the default."""
    table = Table(
        title=f"{made.data}, {made.label}: events a seed: {made.events:,}, seeds: {made.seeds}",
        caption=_caption(made),
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("variant", overflow="fold")
    for name in ("AUC", "log loss", "calibration", "minus default's"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in made.rows:
        figures = (_figure(row.auc, 4), _figure(row.log_loss, 5), _figure(row.calibration, 3))
        table.add_row(row.variant, *figures, _difference(row))
    console.print(table)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _caption(made: AblationReport) -> str:
    if made.rows[0].interval is None and made.data == MARKETS:
        return "one market does not tell how markets vary: intervals take two seeds or more"
    if made.rows[0].interval is None:
        return "one event does not tell how events vary: intervals take two or more"
    return "minus default's: difference of log loss, ± half a 95 % interval"


def _difference(row: Row) -> str:
    if row.interval is None:
        return f"{row.difference:+.5f}"
    return f"{row.difference:+.5f} ± {(row.interval[1] - row.interval[0]) / 2:.5f}"
