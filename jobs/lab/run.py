"""`adscent lab divergence`: every method on every cause, a report, tables and a page."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobs.bench.machine import describe
from jobs.lab.causes import ABOUT, ASIDE, CAUSES, QUICK, Cause, Size
from jobs.lab.measures import CAP, SCORE_LIMIT, WINDOW
from jobs.lab.methods import RADII, STEP_RULES, TUNED, Trial, trials
from jobs.lab.page import page
from jobs.lab.report import LabReport, Traced
from jobs.lab.summary import Runs, cells, differences, goals, totals
from jobs.lab.table import show, show_tried
from jobs.lab.traffic import FEATURES
from jobs.lab.tuning import tasks as tuning_tasks
from jobs.lab.tuning import tune
from jobs.lab.work import Done, Task, performed
from jobs.output import check_separate, write_page, write_report
from models.kernels import PRECISION_STEPS, Step

TRACED: Final[dict[Cause, float]] = {"step_size": 1.0, "returns": 0.5}
"""The causes whose runs of the first seed are kept chunk by chunk, for the page, and the radius:
where steps are right few vectors reach the product's radius, so duals are drawn at a tighter."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run: sizes, step rules, radii and causes."""

    size: Size = Size()  # noqa: RUF009 (frozen)
    steps: tuple[Step, ...] = STEP_RULES
    radii: tuple[float, ...] = RADII
    causes: tuple[Cause, ...] = CAUSES


SHORT: Final = Plan(QUICK, ("adagrad",), (0.5, 1.0), ("calm", "returns", "step_size", "resets"))


def run(
    seeds: int, report: Path | None, html: Path | None, *, quick: bool = False, tuning: bool = False
) -> int:
    """Run the lab, print its tables, write report and page. Returns 0, the goal met or not.

    With `tuning` the settings of all methods are searched instead, on seeds of their own, and
    printed. `quick`: a small lab, one step rule and few causes. Raises `ReportUnwritable`.
    """
    check_separate({"the features file": FEATURES}, report=report, html=html)
    console, plan = Console(), SHORT if quick else Plan()
    if tuning:
        return _tuned(plan, console)
    made = divergence(plan, range(1, seeds + 1), console)
    show(made, console)
    write_report(report, made)
    if html is not None:
        write_page(html, page(made))
    return 0


def divergence(plan: Plan, seeds: Sequence[int], console: Console) -> LabReport:
    """Every trial of the plan on every cause and seed; the same but for seconds and machine."""
    began, machine = time.perf_counter(), describe()
    tasks = _tasks(plan, seeds)
    with _progress(console) as bar:
        task = bar.add_task("runs", total=len(tasks))
        every = list(performed(tasks, _workers(), lambda: bar.advance(task)))
    every.sort(key=lambda done: tasks.index(done.task))
    runs = _keyed(every)
    reached = goals(runs)
    return LabReport(
        machine=machine,
        settings=_settings(plan),
        seeds=list(seeds),
        radii=list(plan.radii),
        causes={cause: ABOUT[cause] for cause in plan.causes},
        aside=sorted(ASIDE & set(plan.causes)),
        tuned={
            step: {str(name): setting for name, setting in methods.items()}
            for step, methods in TUNED.items()
            if step in plan.steps
        },
        cells=cells(runs),
        totals=totals(runs),
        differences=differences(runs),
        goals=reached,
        met=all(goal.met for goal in reached),
        traces=[traced for done in every for traced in _traced(done)],
        seconds=round(time.perf_counter() - began, 1),
    )


def _tasks(plan: Plan, seeds: Sequence[int]) -> list[Task]:
    return [_task(plan, cause, seed, seed == seeds[0]) for seed in seeds for cause in plan.causes]


def _task(plan: Plan, cause: Cause, seed: int, is_first: bool) -> Task:
    """Wide priors are nothing for a step rule without priors."""
    every = trials(plan.steps, plan.radii)
    kept = tuple(t for t in every if cause != "wide_priors" or t.step in PRECISION_STEPS)
    radius = TRACED.get(cause) if is_first else None
    drawn = (place for place, trial in enumerate(kept) if _is_drawn(trial, radius))
    return Task(cause, seed, plan.size, kept, frozenset(drawn))


def _is_drawn(trial: Trial, radius: float | None) -> bool:
    if radius is None or trial.variant:
        return False
    return not trial.keeps_radii or trial.radius == radius


def _keyed(every: Sequence[Done]) -> Runs:
    return {
        (done.task.cause, done.task.seed, trial): result
        for done in every
        for trial, result in zip(done.task.trials, done.runs, strict=True)
    }


def _traced(done: Done) -> list[Traced]:
    task = done.task
    return [
        Traced(
            trial.step,
            task.cause,
            trial.method,
            trial.radius,
            task.seed,
            list(done.present),
            result.trace,
        )
        for trial, result in zip(task.trials, done.runs, strict=True)
        if result.trace is not None
    ]


def _settings(plan: Plan) -> dict[str, float | int | str | bool]:
    found: dict[str, float | int | str | bool] = dict(asdict(plan.size))
    found |= {"regret_cap": CAP, "score_limit": SCORE_LIMIT, "loss_window_chunks": WINDOW}
    return found


def _workers() -> int:
    return max(1, min(os.cpu_count() or 1, 8))


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


def _tuned(plan: Plan, console: Console) -> int:
    with _progress(console) as bar:
        task = bar.add_task("tuning", total=len(tuning_tasks((), plan.size)))
        advance: Callable[[], None] = lambda: bar.advance(task)  # noqa: E731
        show_tried(tune(plan.steps, plan.size, _workers(), advance), console)
    return 0
