"""From runs to the report: means over seeds, totals over causes, paired differences, the goal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from jobs.lab.causes import ASIDE
from jobs.lab.measures import CRITERIA
from jobs.lab.methods import ABOUT, Name, Trial
from jobs.lab.report import Cell, Difference, Estimate, Goal, Total
from jobs.lab.training import Run
from jobs.lab.work import Key

Runs = dict[Key, Run]
"""Each run by its (cause, seed, trial)."""
DIVERGING: Final = 0.2
"""A cause counts for the goal where at least this share of the runs without constraint diverge."""
BASELINES: Final[tuple[Name, ...]] = ("none", "decay", "clipping", "projection", "chunk_projection")


def cells(runs: Runs) -> list[Cell]:
    """One for each cause and trial, in the order in which they first come."""
    groups: dict[tuple[str, Trial], list[Run]] = {}
    for (cause, _, trial), run in runs.items():
        groups.setdefault((cause, trial), []).append(run)
    return [_cell(cause, trial, found) for (cause, trial), found in groups.items()]


def _cell(cause: str, trial: Trial, runs: list[Run]) -> Cell:
    met = {name: sum(name in run.diverged for run in runs) for name in CRITERIA}
    return Cell(
        step=trial.step,
        cause=cause,
        method=trial.method,
        variant=trial.variant,
        radius=trial.radius,
        runs=len(runs),
        diverged=_diverged(runs),
        regret=_known([run.regret for run in runs]),
        norm_ratio=_largest(runs),
        range_share=estimate(run.range_share for run in runs),
        spread_share=estimate(run.spread_share for run in runs),
        returning=estimate(run.returning for run in runs),
        **met,
    )


def totals(runs: Runs) -> list[Total]:
    """Each method over the judged causes, at each radius and, where there are more, over all."""
    found = []
    for trials in _methods(runs).values():
        found += [_total(runs, [trial], trial.radius) for trial in trials]
        if len(trials) > 1:
            found.append(_total(runs, trials, None))
    return found


def _methods(runs: Runs) -> dict[tuple[str, str, str], list[Trial]]:
    """The radii of each (step rule, method, variant)."""
    found: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in dict.fromkeys(trial for _, _, trial in runs):
        found.setdefault((trial.step, trial.method, trial.variant), []).append(trial)
    return found


def _total(runs: Runs, trials: Sequence[Trial], radius: float | None) -> Total:
    kept = {key: run for key, run in runs.items() if key[2] in trials and key[0] not in ASIDE}
    first, every = trials[0], list(kept.values())
    return Total(
        step=first.step,
        method=first.method,
        variant=first.variant,
        radius=radius,
        runs=len(every),
        diverged=_diverged(every),
        regret=_known(list(_by_seed(kept, lambda run: run.regret).values())),
        norm_ratio=_largest(every),
        range_share=estimate(_by_seed(kept, lambda run: run.range_share).values()),
        returning=estimate(_by_seed(kept, lambda run: run.returning).values()),
    )


def _by_seed(runs: Runs, figure: Callable[[Run], float | None]) -> dict[int, float]:
    """The mean of a figure over each seed's runs that define it."""
    found: dict[int, list[float]] = {}
    for (_, seed, _), run in runs.items():
        value = figure(run)
        if value is not None:
            found.setdefault(seed, []).append(value)
    return {seed: float(np.mean(values)) for seed, values in found.items()}


def differences(runs: Runs) -> list[Difference]:
    """Augmented dual ascent against every other method and form under the same step rule."""
    methods = _methods(runs)
    found = []
    for (step, name, variant), trials in methods.items():
        ours = methods[(step, "augmented", "")]
        if (name, variant) != ("augmented", ""):
            found.append(_difference(runs, ours, trials))
    return found


def _difference(runs: Runs, ours: Sequence[Trial], theirs: Sequence[Trial]) -> Difference:
    """Radius with radius, or every radius with the one trial of a method without any.

    A form of the duals that is run at one radius is compared at that radius alone.
    """
    pairs = [(one, other) for one in ours for other in theirs if _comparable(one, other, theirs)]
    every: dict[int, list[float]] = {}
    alive: dict[int, list[float]] = {}
    for cause, seed, trial in runs:
        for one, other in pairs:
            if trial != one or cause in ASIDE:
                continue
            left, right = runs[cause, seed, one], runs[cause, seed, other]
            every.setdefault(seed, []).append(left.regret - right.regret)
            if not left.diverged and not right.diverged:
                alive.setdefault(seed, []).append(left.regret - right.regret)
    return Difference(
        step=theirs[0].step,
        other=theirs[0].method,
        variant=theirs[0].variant,
        all_runs=_known([float(np.mean(values)) for values in every.values()]),
        survivors=estimate(float(np.mean(values)) for values in alive.values()),
        pairs=sum(map(len, alive.values())),
    )


def _comparable(one: Trial, other: Trial, theirs: Sequence[Trial]) -> bool:
    alone = len(theirs) == 1 and not theirs[0].keeps_radii
    return alone or one.radius == other.radius


def goals(runs: Runs) -> list[Goal]:
    """Both lines of the goal, over the sweep and at the product's radii, for each step rule."""
    steps = [step for step, method, _ in _methods(runs) if method == "projection"]
    radii = (None, 1.0)
    return [
        line(runs, step, radius)
        for step in steps
        for line in (_no_divergence, _regret)
        for radius in radii
    ]


def _no_divergence(runs: Runs, step: str, radius: float | None) -> Goal:
    judged = dict.fromkeys(cause for cause, _, _ in runs if cause not in ASIDE)
    hard = [cause for cause in judged if _share(runs, step, cause) >= DIVERGING]
    kept = [
        run
        for (cause, _, trial), run in runs.items()
        if cause in hard and trial in _at(runs, step, "augmented", radius)
    ]
    found = (
        f"without constraint so in {len(hard)} of {len(judged)} regimes"
        f"{' (' + ', '.join(hard) + ')' if hard else ''}; augmented diverged in "
        f"{_diverged(kept)} of {len(kept)} runs there"
    )
    asked = (
        f"no diverging run where one in five or more diverges without constraint, {_where(radius)}"
    )
    return Goal(step, asked, found, _diverged(kept) == 0)


def _where(radius: float | None) -> str:
    return "at any radius" if radius is None else "at the product's radii"


def _at(runs: Runs, step: str, method: str, radius: float | None) -> list[Trial]:
    """The product's form of a method at a radius, or at all; the one trial of those without any."""
    every = _methods(runs)[(step, method, "")]
    alone = len(every) == 1 or radius is None
    return [trial for trial in every if alone or trial.radius == radius]


def _share(runs: Runs, step: str, cause: str) -> float:
    free = _at(runs, step, "none", None)
    kept = [run for (at, _, trial), run in runs.items() if at == cause and trial in free]
    return _diverged(kept) / len(kept)


def _regret(runs: Runs, step: str, radius: float | None) -> Goal:
    means = {
        name: _total(runs, _at(runs, step, name, radius), radius).regret.mean
        for name in (*BASELINES, "augmented")
    }
    best = min(BASELINES, key=lambda name: means[name])
    found = f"{means['augmented']:.5f} against {means[best]:.5f}, the best's ({ABOUT[best]})"
    where = "mean over all radii" if radius is None else _where(radius)
    asked = f"lower mean regret than every baseline, {where}"
    return Goal(step, asked, found, means["augmented"] < means[best])


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and standard error of the values that are defined; None without any."""
    known = [value for value in values if value is not None]
    return _known(known) if known else None


def _known(values: Sequence[float]) -> Estimate:
    n = len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return Estimate(float(np.mean(values)), error)


def _diverged(runs: Iterable[Run]) -> int:
    return sum(bool(run.diverged) for run in runs)


def _largest(runs: Iterable[Run]) -> float | None:
    ratios = [run.norm_ratio for run in runs]
    return None if None in ratios else max(ratio for ratio in ratios if ratio is not None)
