"""How the settings in `methods.TUNED` came about: a grid for each method, on seeds of its own.

The best setting has the lowest mean regret over all causes that strike latent vectors, the tuning
seeds and the two smaller radii of the sweep. A diverging run has a high regret, so it counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from jobs.lab.causes import ASIDE, CAUSES, Size
from jobs.lab.methods import WITH_RADIUS, Name, Trial
from jobs.lab.work import Task, performed
from models.kernels import Step

SEEDS: Final = (1001, 1002)
RADII: Final = (0.5, 1.0)
GRIDS: Final[dict[Name, dict[str, tuple[float, ...]]]] = {
    "decay": {"weight_decay": (1e-3, 1e-2, 0.1, 1.0)},
    "clipping": {"clip_norm": (0.1, 0.3, 1.0, 3.0)},
    "dual": {"dual_rate": (0.03, 0.3, 3.0, 30.0)},
    "augmented": {"dual_rate": (0.03, 1.0), "violation_weight": (1.0, 3.0, 10.0, 30.0, 100.0)},
}


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting of a method under a step rule: mean regret and share of diverging runs."""

    step: Step
    method: Name
    setting: dict[str, float]
    regret: float
    diverged: float


def tune(
    steps: tuple[Step, ...], size: Size, workers: int, advance: Callable[[], None] = lambda: None
) -> list[Tried]:
    """Every setting of every grid, best first within each step rule and method."""
    trials = tuple(_trials(steps))
    found: dict[tuple[Step, Name, tuple[tuple[str, Any], ...]], list[tuple[float, bool]]]
    found = defaultdict(list)
    for done in performed(tasks(trials, size), workers, advance):
        for trial, run in zip(trials, done.runs, strict=True):
            key = trial.step, trial.method, trial.changes
            found[key].append((run.regret, bool(run.diverged)))
    tried = [Tried(*key[:2], dict(key[2]), *_means(runs)) for key, runs in found.items()]
    return sorted(tried, key=lambda one: (one.step, one.method, one.regret))


def tasks(trials: tuple[Trial, ...], size: Size) -> list[Task]:
    """One task for each cause that strikes latent vectors and each tuning seed."""
    causes = [cause for cause in CAUSES if cause not in ASIDE]
    return [Task(cause, seed, size, trials) for seed in SEEDS for cause in reversed(causes)]


def best(tried: list[Tried]) -> dict[Step, dict[Name, dict[str, float]]]:
    """The first of each step rule and method: what `methods.TUNED` holds."""
    chosen: dict[Step, dict[Name, dict[str, float]]] = {}
    for one in tried:
        chosen.setdefault(one.step, {}).setdefault(one.method, one.setting)
    return chosen


def _trials(steps: tuple[Step, ...]) -> list[Trial]:
    return [
        Trial(step, name, radius, "tuning", tuple(zip(grid, values, strict=True)))
        for step in steps
        for name, grid in GRIDS.items()
        for values in product(*grid.values())
        for radius in (RADII if name in WITH_RADIUS else (1.0,))
    ]


def _means(runs: list[tuple[float, bool]]) -> tuple[float, float]:
    regret, diverged = np.array(runs, np.float64).mean(axis=0).tolist()
    return regret, diverged
