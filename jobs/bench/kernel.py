"""The training kernel alone: events a second of one thread and of two, at several shapes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.bench.report import Measure, Target, measure
from jobs.bench.shapes import Widths, draw, schema_of
from jobs.market import Market
from models.features import Schema
from models.kernels import Kernel, Parameters, Rule, Shape, Values, compiled
from models.metrics import log_loss
from models.offset import State, genesis
from models.trainer import TrainerSettings, train
from models.types import Batch, Float32s, Float64s

KERNEL_TARGET = 1_500_000.0
THREADS_TARGET = 1.8
COMPILE_TARGET_S = 3.0
COST_TARGET = 0.0005
"""Largest log loss that two threads may cost."""


class Timed:
    """A kernel that notes how long `learn` took: `seconds` of its thread, `wall_seconds` in all."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.resolve = kernel.resolve
        self.seconds = self.wall_seconds = 0.0

    def learn(self, *arguments: Any) -> None:
        """See `models.kernels.Kernel.learn`."""
        wall, started = time.perf_counter(), time.thread_time()
        self._kernel.learn(*arguments)
        self.seconds = time.thread_time() - started
        self.wall_seconds = time.perf_counter() - wall


class Span:
    """A kernel for several threads that notes the first block's start and the last one's end."""

    resolve = staticmethod(compiled.resolve)

    def __init__(self) -> None:
        self._times: list[float] = []

    def learn(self, *arguments: Any) -> None:
        """See `models.kernels.Kernel.learn`."""
        started = time.perf_counter()
        compiled.learn(*arguments)
        self._times += (started, time.perf_counter())

    def seconds(self) -> float:
        """The span by the wall, merges between blocks included; the next one starts anew."""
        times, self._times = self._times, []
        return max(times) - min(times)


class MainEffects:
    """The same kernel without interactions: all vectors have width 0."""

    resolve = staticmethod(compiled.resolve)

    def learn(
        self,
        shape: Shape,
        rule: Rule,
        user: Parameters,
        ad: Parameters,
        user_values: Values,
        ad_values: Values,
        label: Float32s,
        bias: Float64s,
        scores: Float32s,
    ) -> None:
        """See `models.kernels.Kernel.learn`."""
        narrow = shape._replace(overlap=0, alone=0)
        sides = (_mains(user), _mains(ad), user_values, ad_values)
        compiled.learn(narrow, rule, *sides, label, bias, scores)


def _mains(table: Parameters) -> Parameters:
    none, prior = (np.zeros((len(each), 0), np.float32) for each in (table.main, table.main_prior))
    return table._replace(latent=none, latent_evidence=none, latent_prior=prior)


def kernel_measures(
    market: Market, events: int, rounds: int, shapes: Sequence[Widths]
) -> dict[str, Measure]:
    """Speed at each shape; the first one has the targets."""
    found: dict[str, Measure] = {}
    for widths in shapes:
        schema, drawn = schema_of(widths), draw(market, events, widths)
        of = f"K={widths[0]}, A=3, o={widths[1]}, s={widths[2]}"
        name, is_first = f"kernel_d{schema.dimensions}", not found
        runs = _rounds(schema, drawn, rounds)
        found[name] = measure(
            runs["thread"],
            "events/s",
            f"the kernel's loop, {of}, per second of its one thread; baseline: the same loop on the"
            " same events with main effects only",
            baseline=runs["mains"],
            target=("value at least", KERNEL_TARGET) if is_first else None,
        )
        found[f"{name}_wall"] = measure(
            runs["wall"], "events/s", "the same by the clock on the wall"
        )
        found[f"{name}_two_threads"] = measure(
            runs["two"],
            "events/s",
            f"two threads, {of}, by the wall, merges included; baseline: one by the wall",
            baseline=runs["wall"],
            target=("ratio at least", THREADS_TARGET) if is_first else None,
        )
        found[f"{name}_train"] = measure(
            runs["train"], "events/s", "`train` by the wall: rows resolved, learned, duals, priors"
        )
        if is_first:
            found["two_threads_log_loss"] = _cost(schema, drawn)
    return found


def _cost(schema: Schema, drawn: Batch) -> Measure:
    """Progressive log loss of two threads against one, from the first event on."""
    settings = TrainerSettings.of(schema)
    start = genesis(schema, schema.model.base_rate, schema.model.seed)
    one, two = (
        log_loss(train(start, drawn, schema, settings, threads=threads).predicted, drawn.label)
        for threads in (1, 2)
    )
    target: Target = ("value at most", one + COST_TARGET)
    about = "log loss, each event predicted before it is learned, of two threads; baseline: of one"
    return measure([two], "log loss", about, baseline=[one], target=target)


def _rounds(schema: Schema, drawn: Batch, rounds: int) -> dict[str, list[float]]:
    """Speeds by kernel, which take turns: of the thread, of main effects, by the wall, of two."""
    settings = TrainerSettings.of(schema)
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    one, mains, two = Timed(compiled), Timed(MainEffects()), Span()
    for kernel in (one, mains):
        state = train(state, drawn, schema, settings, kernel).state  # compiles, and makes the rows
    found: dict[str, list[float]] = {
        name: [] for name in ("thread", "mains", "wall", "two", "train")
    }
    for _ in range(rounds):
        whole = _seconds(state, drawn, schema, settings, one)
        train(state, drawn, schema, settings, two, threads=2)
        _seconds(state, drawn, schema, settings, mains)
        seconds = (one.seconds, mains.seconds, one.wall_seconds, two.seconds(), whole)
        for speeds, took in zip(found.values(), seconds, strict=True):
            speeds.append(len(drawn) / took)
    return found


def _seconds(
    state: State, drawn: Batch, schema: Schema, settings: TrainerSettings, kernel: Timed
) -> float:
    """Of the whole `train` by the wall."""
    started = time.perf_counter()
    train(state, drawn, schema, settings, kernel)
    return time.perf_counter() - started


def first_call_measures(widths: Widths) -> dict[str, Measure]:
    """How long a new process waits for its first chunk, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory(prefix="adscent-numba-") as cache:
        (cold, cold_cpu), (warm, _) = (_first_call(cache, widths) for _ in range(2))
    about = "of `train` on ten events in a new process, imports not counted"
    return {
        "first_call_compiling": measure(
            [cold],
            "s",
            f"first call {about}; it compiles",
            target=("value at most", COMPILE_TARGET_S),
        ),
        "first_call_compiling_cpu": measure([cold_cpu], "s", "the same in processor time"),
        "first_call_cached": measure(
            [warm],
            "s",
            f"first call {about}; compiled code from the cache. Baseline: with compiling",
            baseline=[cold],
        ),
    }


def _first_call(cache: str, widths: Widths) -> tuple[float, float]:
    command = [sys.executable, "-m", "jobs.bench.kernel", *map(str, widths)]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    printed = subprocess.check_output(command, env=environment)  # noqa: S603 - our own module
    wall, processor = map(float, printed.split())
    return wall, processor


def _time_first_call(widths: Widths) -> tuple[float, float]:
    """Seconds by the wall and of the processor."""
    schema, drawn = schema_of(widths), draw(Market(1, 50), 10, widths)
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    started, used = time.perf_counter(), time.process_time()
    train(state, drawn, schema, TrainerSettings.of(schema))
    return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    features, overlap, alone = map(int, sys.argv[1:])
    print(*_time_first_call((features, overlap, alone)))
