"""The methods that the lab compares: each one setting for all causes, tuned on other seeds.

A setting may differ between step rules, whose steps have different units: a weight decay of 1 is a
prior for the curvature step and a wipe-out for AdaGrad. `tuning.py` shows how they came about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from jobs.lab.causes import Regime
from models.kernels import PRECISION_STEPS, Constraint, Step
from models.schema import Schema
from models.trainer import TrainerSettings

RADII: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The sweep: radii as multiples of the product's."""

STEP_RULES: Final[tuple[Step, ...]] = ("curvature", "adagrad", "published")

LEARNING_RATES: Final[dict[Step, float]] = {"adagrad": 0.05, "published": 0.1}
"""η0 of the steps that have one: what did best without constraint on the calm market of another
seed, of 0.005 to 0.4, so that no method is credited with mending a step that is merely too long."""

Name = Literal["none", "decay", "clipping", "projection", "chunk_projection", "dual", "augmented"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)
ABOUT: Final[dict[Name, str]] = {
    "none": "no constraint",
    "decay": "a fixed weight decay λ",
    "clipping": "gradient clipping",
    "projection": "projection at each touch",
    "chunk_projection": "projection after each chunk",
    "dual": "dual ascent",
    "augmented": "augmented dual ascent",
}
"""Each method, for people."""
_CONSTRAINTS: Final[dict[Name, Constraint]] = {
    "none": "none",
    "decay": "none",
    "clipping": "clipping",
    "projection": "projection",
    "chunk_projection": "none",
    "dual": "dual",
    "augmented": "augmented",
}
WITH_RADIUS: Final[tuple[Name, ...]] = ("projection", "chunk_projection", "dual", "augmented")

Setting = dict[str, float]
TUNED: Final[dict[Step, dict[Name, Setting]]] = {
    "curvature": {
        "decay": {"weight_decay": 1.0},
        "clipping": {"clip_norm": 1.0},
        "dual": {"dual_rate": 0.03},
        "augmented": {"dual_rate": 0.03, "violation_weight": 3.0},
    },
    "adagrad": {
        "decay": {"weight_decay": 1.0},
        "clipping": {"clip_norm": 3.0},
        "dual": {"dual_rate": 3.0},
        "augmented": {"dual_rate": 0.03, "violation_weight": 100.0},
    },
    "published": {
        "decay": {"weight_decay": 1.0},
        "clipping": {"clip_norm": 1.0},
        "dual": {"dual_rate": 30.0},
        "augmented": {"dual_rate": 0.03, "violation_weight": 100.0},
    },
}
"""What `adscent lab divergence --tune` chose on its own seeds, for each step rule and method."""
_AS: Final[dict[Step, Step]] = {"linear": "curvature"}
"""Step rules that take the settings of another."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to train: a step rule, a method at a radius (a multiple; 1 where it has none).

    `variant` names what differs from the product's form of the method, "" for nothing; `changes`
    are the settings that do.
    """

    step: Step
    method: Name
    radius: float = 1.0
    variant: str = ""
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def keeps_radii(self) -> bool:
        """Whether what is served is projected onto the radii."""
        return self.method in WITH_RADIUS


VARIANTS: Final[dict[str, tuple[tuple[str, Any], ...]]] = {
    "explicit": (("shrink", "explicit"),),
    "no ascent": (("dual_rate", 0.0),),
}
"""Other forms of the duals: the explicit shrink; no ascent, which leaves it to the present
violation to shrink a vector."""
IN_FULL: Final = (("weighs_interactions", False),)
"""Interactions serve in full, not by the weight that they have earned."""


def trials(steps: tuple[Step, ...], radii: tuple[float, ...]) -> list[Trial]:
    """Every method under every step rule at every radius, then the other forms at the first."""
    found = [
        Trial(step, name, radius)
        for step in steps
        for name in NAMES
        for radius in (radii if name in WITH_RADIUS else (1.0,))
    ]
    duals: tuple[Name, ...] = ("dual", "augmented")
    found += [
        Trial(step, name, 1.0, variant, changes)
        for step in steps
        for name in duals
        for variant, changes in VARIANTS.items()
        if (name, variant) != ("dual", "no ascent")  # that would be no constraint
    ]
    if "curvature" in steps:
        ends: tuple[Name, ...] = ("none", "augmented")
        found += [Trial("linear", name) for name in ends]
        found += [Trial("curvature", name, 1.0, "in full", IN_FULL) for name in ends]
    return found


def settings_of(trial: Trial, regime: Regime, schema: Schema) -> TrainerSettings:
    """The product's settings with the trial's method and the regime's step size.

    The steps of the literature serve interactions in full, as the literature does: only the method
    stands between them and what is served.
    """
    plain = TrainerSettings.of(schema)
    factor = "step_size" if regime.strikes_all else "latent_step"
    values: dict[str, Any] = {
        "step": trial.step,
        "constraint": _CONSTRAINTS[trial.method],
        "user_radius": plain.user_radius * trial.radius,
        "ad_radius": plain.ad_radius * trial.radius,
        factor: regime.step_factor,
        "user_latent_variance": plain.user_latent_variance * regime.prior_factor,
        "weighs_interactions": trial.step in PRECISION_STEPS,
        "learning_rate": LEARNING_RATES.get(trial.step, plain.learning_rate),
    }
    tuned = TUNED[_AS.get(trial.step, trial.step)].get(trial.method, {})
    return replace(plain, **values | tuned | dict(trial.changes))
