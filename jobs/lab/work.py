"""Runs spread over worker processes: one task is all trials on the traffic of one (cause, seed)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from jobs.lab.causes import Cause, Size, regime
from jobs.lab.methods import Trial
from jobs.lab.traffic import traffic
from jobs.lab.training import Run, run

Key = tuple[Cause, int, Trial]
_WARMING = Size(ads=20, chunks=1, events=20)


@dataclass(frozen=True, slots=True)
class Task:
    """All `trials` on the traffic of one cause and seed; `traced`: which of them, by position."""

    cause: Cause
    seed: int
    size: Size
    trials: tuple[Trial, ...]
    traced: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """A task's runs in the order of its trials, and whether the traced ad was there each chunk."""

    task: Task
    runs: tuple[Run, ...]
    present: tuple[bool, ...]


def perform(task: Task) -> Done:
    """Draw the traffic once, then run every trial on it."""
    drawn = traffic(regime(task.cause, task.seed, task.size))
    runs = tuple(
        run(drawn, trial, traced=position in task.traced)
        for position, trial in enumerate(task.trials)
    )
    return Done(task, runs, tuple(drawn.present.tolist()))


def performed(
    tasks: Sequence[Task], workers: int, advance: Callable[[], None] = lambda: None
) -> Iterator[Done]:
    """Every task's runs, in the order in which they end; `advance` is called after each.

    Workers are spawned, as a fork would copy the threads of compiled code. Each kind of trial is
    run once on next to nothing before, so that no two workers compile the same kernel.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(perform, _kinds(tasks)))
        for future in as_completed([pool.submit(perform, task) for task in tasks]):
            advance()
            yield future.result()


def _kinds(tasks: Sequence[Task]) -> list[Task]:
    """A tiny task for each kernel that the tasks will need."""
    every = (trial for task in tasks for trial in task.trials)
    kinds = {(trial.step, trial.method, trial.variant == "explicit"): trial for trial in every}
    return [Task("calm", 0, _WARMING, (trial,)) for trial in kinds.values()]
