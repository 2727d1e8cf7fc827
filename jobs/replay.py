"""Replay: a log through the same encoder, trainer, duals and gate as production, chunk by chunk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.logfile import Log, chunk_ms
from jobs.replay_figures import About, Predictions, chunk_report, summarise
from jobs.replay_page import page
from jobs.replay_report import ChunkReport, ReplayReport
from jobs.replay_table import tables
from models.constraints import project
from models.cycle import Outcome, genesis_snapshot, learn
from models.errors import InvalidInput, SchemaInvalid
from models.features import Schema, load_schema
from models.index import AdSet
from models.offset import genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Batch, Float64s, Int64s, Ragged, empty_batch, join_ragged


class ReportUnwritable(InvalidInput):
    """A file that was asked for and that could not be written at the end."""


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
    `ReportUnwritable` before anything is replayed.
    """
    schema, length_ms = _schema(features), chunk_ms(chunk)
    check_writable("--report", report)
    check_writable("--html", html)
    console = Console()
    with Log(log, schema, label) as opened, _progress(console) as bar:
        task = bar.add_task(log.name, total=opened.chunk_count(length_ms))
        result = replay(opened, schema, chunk, seed, lambda: bar.advance(task))
    for table in tables(result):
        console.print(table)
    _write(report, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    _write(html, page(result).encode())
    return 0


def _schema(path: Path) -> Schema:
    """The schema of the file; its errors name the file."""
    try:
        return load_schema(path)
    except SchemaInvalid as error:
        place = "" if error.field in ("features file", "features.toml") else f", {error.field}"
        raise SchemaInvalid(f"{path}{place}", error.value, error.limit, error.remedy) from error


def check_writable(option: str, path: Path | None) -> None:
    """Make the folder of a file that is written at the end. Raises `ReportUnwritable`."""
    if path is None:
        return
    remedy = "Give the path of a file in a folder that you may write to."
    if path.is_dir():
        raise ReportUnwritable(option, str(path), "it is a folder", remedy)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        limit = f"its folder cannot be made ({error.strerror})"
        raise ReportUnwritable(option, str(path), limit, remedy) from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ReportUnwritable(option, str(path), "it cannot be written", remedy)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TextColumn("chunks"), TimeRemainingColumn(), console=console)


def _write(path: Path | None, content: bytes) -> None:
    if path is not None:
        path.write_bytes(content)


def replay(
    log: Log, schema: Schema, chunk: str, seed: int, advance: Callable[[], None] = lambda: None
) -> ReplayReport:
    """Score, then learn each chunk of `log`; `advance` is called after each one.

    Everything but the measured seconds follows from the log, the schema, `chunk` ("1h") and `seed`.
    """
    length_ms = chunk_ms(chunk)
    schema = replace(schema, model=replace(schema.model, seed=seed))
    settings = TrainerSettings.of(schema)
    line, plain = _Line(schema, settings), _MainEffects(schema, settings)
    predictions = Predictions(schema.model.base_rate)
    chunks: list[ChunkReport] = []
    for start_ms, batch in log.chunks(length_ms):
        outcome, seconds = line.advance(batch, start_ms + length_ms)
        predictions.add(batch.time_ms, batch.label, outcome.predicted, plain.advance(batch))
        served = line.incumbent.manifest
        chunks.append(chunk_report(start_ms, predictions.latest, outcome, served, seconds))
        advance()
    about = About(log.path.name, log.label, chunk)
    return summarise(about, schema, settings, chunks, predictions)


class _Line:
    """The line of snapshots as production would make it, in memory.

    The catalog is what the log has shown so far; a snapshot's id is a plain counter, so that a
    replay can be repeated exactly.
    """

    def __init__(self, schema: Schema, settings: TrainerSettings) -> None:
        self.schema, self.settings, self.made = schema, settings, 1
        self.ads = no_ads(len(schema.ad))
        self.incumbent = genesis_snapshot(schema, self.ads, snapshot_id=UUID(int=1), now_ms=0)
        nothing = empty_batch(len(schema.user), len(schema.ad))
        train(self.incumbent.state, nothing, schema, settings)  # compiles, before any clock runs

    def advance(self, batch: Batch, now_ms: int) -> tuple[Outcome, float]:
        """Score and learn one chunk; the incumbent changes unless the gate refuses."""
        self.ads = seen(self.ads, batch)
        ids = UUID(int=self.made + 1), UUID(int=self.made + 2)
        began = time.perf_counter()
        outcome = learn(
            self.incumbent,
            batch,
            self.ads,
            self.schema,
            self.settings,
            snapshot_ids=ids,
            now_ms=now_ms,
        )
        seconds = time.perf_counter() - began
        self.made += 2
        if outcome.candidate.manifest.verdict.result != "refused":
            self.incumbent = outcome.candidate
        return outcome, seconds


class _MainEffects:
    """The same trainer without interactions: latents that start at 0 on both sides stay there."""

    def __init__(self, schema: Schema, settings: TrainerSettings) -> None:
        self.schema, self.settings = schema, replace(settings, initial_scale=0.0)
        self.state = genesis(schema, schema.model.base_rate, schema.model.seed)

    def advance(self, batch: Batch) -> Float64s:
        """The pCTR of each event before the chunk is learned, float64 [n]; then learn it."""
        model, _ = project(self.state, self.settings.radii, self.schema)
        predicted = sigmoid(model.score(batch.user, batch.ad))
        self.state = train(self.state, batch, self.schema, self.settings).state
        return predicted


def no_ads(features: int) -> AdSet:
    """A catalog without ads."""
    none = np.zeros(0, np.int64)
    return AdSet(none, none, np.zeros(0, np.float32), Ragged(none, np.zeros(1, np.int64), features))


def seen(ads: AdSet, batch: Batch) -> AdSet:
    """The catalog after a chunk: each ad with the features it last had, all bids alike."""
    ids = np.concatenate((ads.ad_ids, batch.ad_id))
    newest, first = np.unique(ids[::-1], return_index=True)
    features = rows_of(join_ragged(ads.features, batch.ad), len(ids) - 1 - first)
    return AdSet(newest, np.zeros_like(newest), np.zeros(len(newest), np.float32), features)


def rows_of(ragged: Ragged, rows: Int64s) -> Ragged:
    """The given rows of a CSR block, in the given order: `rows` is int64 [n]."""
    width = np.diff(ragged.ptr).reshape(-1, ragged.features)[rows]
    ptr = np.zeros(width.size + 1, np.int64)
    np.cumsum(width.ravel(), out=ptr[1:])
    lengths = width.sum(axis=1)
    # Positions in `ids`: each row's old start, less where it starts now, repeated along the row.
    moved = ragged.ptr[rows * ragged.features] - (np.cumsum(lengths) - lengths)
    return Ragged(ragged.ids[np.arange(ptr[-1]) + np.repeat(moved, lengths)], ptr, ragged.features)
