"""The training kernel alone: events a second of one thread, without database or snapshot."""

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
from jobs.market import Market
from jobs.market.traffic import batch
from models.features import Schema, parse_schema
from models.kernels import Kernel, Parameters, Rule, Shape, Values, compiled
from models.offset import State, genesis
from models.trainer import TrainerSettings, train
from models.types import Batch, Float32s, Float64s

KERNEL_TARGET = 1_500_000.0
_USER = ("geo", "device", "hour", "age", "interest", "placement")
_AD = ("creative", "campaign", "advertiser")


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
        predicted: Float32s,
    ) -> None:
        """See `models.kernels.Kernel.learn`."""
        narrow = shape._replace(overlap=0, alone=0)
        sides = (_mains(user), _mains(ad), user_values, ad_values)
        compiled.learn(narrow, rule, *sides, label, bias, predicted)


def _mains(table: Parameters) -> Parameters:
    none = np.zeros((len(table.main), 0), np.float32)
    return table._replace(latent=none, latent_precision=none)


def kernel_measures(
    market: Market, events: int, rounds: int, shapes: Sequence[tuple[int, int]]
) -> dict[str, Measure]:
    """Speed at each (overlap, alone); the first one has the target."""
    found: dict[str, Measure] = {}
    for overlap, alone in shapes:
        schema = _schema(overlap, alone)
        drawn = batch(market, events, schema)
        target: Target | None = None if found else ("value at least", KERNEL_TARGET)
        speeds, plain, walls, whole = _rounds(schema, drawn, rounds)
        name = f"kernel_d{schema.dimensions}"
        found[name] = measure(
            speeds,
            "events/s",
            f"the kernel's loop, K=6, A=3, o={overlap}, s={alone}, per second of its one thread;"
            " baseline: the same loop on the same events with main effects only",
            baseline=plain,
            target=target,
        )
        found[f"{name}_wall"] = measure(walls, "events/s", "the same by the clock on the wall")
        found[f"{name}_train"] = measure(
            whole, "events/s", "`train` by the wall: rows resolved, learned, duals, priors"
        )
    return found


def _rounds(schema: Schema, drawn: Batch, rounds: int) -> tuple[list[float], ...]:
    """Speeds of kernel, main effects, kernel by the wall, and `train`; the kernels alternate."""
    kernels = Timed(compiled), Timed(MainEffects())
    settings = TrainerSettings.of(schema)
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    for kernel in kernels:
        state = train(state, drawn, schema, settings, kernel).state  # compiles, and makes the rows
    found: tuple[list[float], ...] = ([], [], [], [])
    for _ in range(rounds):
        seconds = [_seconds(state, drawn, schema, settings, kernel) for kernel in kernels]
        all_seconds = (seconds[0][0], seconds[1][0], kernels[0].wall_seconds, seconds[0][1])
        for speeds, took in zip(found, all_seconds, strict=True):
            speeds.append(len(drawn) / took)
    return found


def _seconds(
    state: State, drawn: Batch, schema: Schema, settings: TrainerSettings, kernel: Timed
) -> tuple[float, float]:
    """Of the kernel's thread, and of the whole `train`."""
    started = time.perf_counter()
    train(state, drawn, schema, settings, kernel)
    return kernel.seconds, time.perf_counter() - started


def _schema(overlap: int, alone: int) -> Schema:
    kinds = {"interest": "multi"}
    names = [f"user.{name}" for name in _USER] + [f"ad.{name}" for name in _AD]
    tables = [
        f'[{name}]\nkind = "{kinds.get(name.partition(".")[2], "categorical")}"' for name in names
    ]
    model = f"[model]\noverlap = {overlap}\nalone = {alone}"
    return parse_schema("\n".join(("version = 1", *tables, model)))


def first_call_measures(overlap: int, alone: int) -> dict[str, Measure]:
    """How long a new process waits for its first chunk, with an empty cache and with a full one."""
    with tempfile.TemporaryDirectory(prefix="adscent-numba-") as cache:
        cold, warm = (_first_call(cache, overlap, alone) for _ in range(2))
    about = "of `train` on ten events in a new process, imports not counted"
    return {
        "first_call_compiling": measure([cold], "s", f"first call {about}; it compiles"),
        "first_call_cached": measure(
            [warm],
            "s",
            f"first call {about}; compiled code from the cache. Baseline: with compiling",
            baseline=[cold],
        ),
    }


def _first_call(cache: str, overlap: int, alone: int) -> float:
    command = [sys.executable, "-m", "jobs.bench.kernel", str(overlap), str(alone)]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    return float(subprocess.check_output(command, env=environment))  # noqa: S603 - our own module


def _time_first_call(overlap: int, alone: int) -> float:
    schema = _schema(overlap, alone)
    drawn = batch(Market(1, 50), 10, schema)
    state = genesis(schema, schema.model.base_rate, schema.model.seed)
    started = time.perf_counter()
    train(state, drawn, schema, TrainerSettings.of(schema))
    return time.perf_counter() - started


if __name__ == "__main__":
    print(_time_first_call(*map(int, sys.argv[1:])))
