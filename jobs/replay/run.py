"""Replay: a log through the same encoder, trainer, duals and gate as production, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.logfile import Log, chunk_ms
from jobs.output import check_separate, write_page, write_report
from jobs.replay.frozen import FrozenModels
from jobs.replay.line import Line, MainEffects
from jobs.replay.page import page
from jobs.replay.predictions import Predictions
from jobs.replay.report import ChunkReport, ReplayReport
from jobs.replay.summary import About, chunk_report, summarise
from jobs.replay.table import tables
from models.errors import SchemaInvalid
from models.features import Schema, load_schema
from models.trainer import TrainerSettings


def run(
    log: Path,
    features: Path,
    label: str,
    chunk: str,
    report: Path | None,
    html: Path | None,
    seed: int,
) -> int:
    """Replay `log`, print the result, write the JSON report and the page; returns the exit code.

    Raises `SchemaInvalid` for the features file, `LogInvalid` for the log or the chunk's length,
    `ReportUnwritable` for a report or page that is another of these files, and at the end.
    """
    check_separate({"the log": log, "the features file": features}, report=report, html=html)
    schema, length_ms = _schema(features), chunk_ms(chunk)
    console = Console()
    with Log(log, schema, label) as opened, _progress(console) as bar:
        task = bar.add_task(log.name, total=opened.chunk_count(length_ms))
        result = replay(opened, schema, chunk, seed, lambda: bar.advance(task))
    for table in tables(result):
        console.print(table)
    write_report(report, result)
    if html is not None:
        write_page(html, page(result))
    return 0


def _schema(path: Path) -> Schema:
    """The schema of the file; its errors name the file."""
    try:
        return load_schema(path)
    except SchemaInvalid as error:
        place = "" if error.field in ("features file", "features.toml") else f", {error.field}"
        raise SchemaInvalid(f"{path}{place}", error.value, error.limit, error.remedy) from error


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TextColumn("chunks"), TimeRemainingColumn(), console=console)


def replay(
    log: Log, schema: Schema, chunk: str, seed: int, advance: Callable[[], None] = lambda: None
) -> ReplayReport:
    """Score, then learn each chunk of `log`; `advance` is called after each one.

    Everything but the measured seconds follows from the log, the schema, `chunk` ("1h") and `seed`.
    """
    length_ms = chunk_ms(chunk)
    schema = replace(schema, model=replace(schema.model, seed=seed))
    settings = TrainerSettings.of(schema)
    line, plain = Line(schema, settings), MainEffects(schema, settings)
    frozen = FrozenModels(*log.span_ms())
    predictions = Predictions(schema.model.base_rate)
    chunks: list[ChunkReport] = []
    for start_ms, batch in log.chunks(length_ms):
        frozen.freeze(start_ms, line.incumbent.model)
        outcome, seconds = line.advance(batch, start_ms + length_ms)
        predictions.add(batch, outcome.predicted, plain.advance(batch), frozen.predict(batch))
        served = line.incumbent.manifest
        chunks.append(chunk_report(start_ms, predictions.latest, outcome, served, seconds))
        advance()
    about = About(log.path.name, log.label, chunk, log.bids())
    return summarise(about, schema, settings, chunks, predictions.all())
