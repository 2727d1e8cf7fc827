"""One pass over a chunk of events: each is predicted, then learned; then the duals ascend.

Step rules (`TrainerSettings.step`):

- `curvature`: each parameter keeps a precision π, at first that of its prior, and an event with
  slopes `j = ∂s/∂θ` and `V = Σ j²/π` moves it by `−(σ(x) − y) j/π`, where x solves
  `x = s − V (σ(x) − y)`: the score after the step, so that one click cannot overshoot. π then grows
  by `j² / (1/(σ(x)(1 − σ(x))) + V)`, the event's information on one parameter while the others
  are uncertain too. To first order this is `−(σ(s) − y) j / (π (1 + V h))`, `h = σ(s)(1 − σ(s))`,
  a diagonal Kalman filter. Prior variances of main effects are learned, see `priors`.
- `adagrad`: `η0 / √(α + Σ ∇²)`.
- `published`: `η0 / (α + (Σ |∇|)^β)`, the step of arXiv 2312.05052.

Constraints (`TrainerSettings.constraint`) act at each touch of a vector, so a frequent one feels
them more often: `dual` shrinks by the implicit form `v ← (v − η∇) / (1 + η μ)`; `augmented` adds
the violation `‖v‖²/r² − 1` that the step has just made to μ; `projection` projects. The penalty
stays out of the step's accumulators. The explicit form of the shrink can turn NaN, this one cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from models.constraints import Radii, ascend
from models.errors import SchemaMismatch
from models.kernels import (
    CONSTRAINTS,
    STEPS,
    Constraint,
    Kernel,
    Parameters,
    Rule,
    Shape,
    Step,
    Values,
    check,
    compiled,
)
from models.offset import State, Table
from models.priors import Births, first_rows, in_force, learned, normals
from models.types import Batch, Float32s, Int64s, Ragged

if TYPE_CHECKING:
    from models.features import Schema


INITIAL_SCALE = 0.2
"""Standard deviation of a user value's first latents."""

INTERACTION_VARIANCE = 0.02
"""Prior variance of ν_u · ν_a of an event, all ad features together, whatever K, o, s and A.

Measured: 0.05 costs the KuaiRand log 0.0004 log loss against main effects only, on a seeded market
with true interactions both gain (0.0002 to 0.0003); 0.01 gains less there.
"""

USER_RADIUS = 2.5
"""Radius of user vectors over their expected norm at birth, `initial_scale · √d`.

1.5 × the 99.9th percentile of healthy runs is 1.8 to 2.7 (KuaiRand's two labels and two seeded
markets, 22 k to 300 k events; o and s of 2/0, 1/2, 2/4, 4/4 and 8/8): user vectors hardly move.
"""

AD_RADIUS = 1.0
"""Radius of ad vectors over the norm that their prior expects, `√(D · ad_latent_variance)`.

1.5 × the 99.9th percentile is 0.03 to 0.35 in the same runs. But ad vectors start at zero and go on
growing towards what the prior expects as evidence comes, so the radius leaves a long run its room.
"""


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How a chunk is learned.

    `step_size` multiplies every step (1 is right; an absurd one diverges, and the gate refuses).
    `user_radius` and `ad_radius` bound each latent vector's norm. Variances are those of the
    priors: of each feature's main effects (None: learned from the data), of each entry of user and
    ad latents. `dual_rate`: ρ of the dual ascent; `dual_max`: the largest μ. `violation_weight`:
    weight of the present violation in the augmented form. `initial_scale`: sd of a user value's
    first latents. `weight_decay`: a fixed λ for every latent vector. `learning_rate` (η0), `alpha`
    and `beta` are those of the AdaGrad and published steps.
    """

    shape: Shape
    user_radius: float
    ad_radius: float
    user_variance: tuple[float | None, ...]
    ad_variance: tuple[float | None, ...]
    ad_latent_variance: float
    user_latent_variance: float = 0.1
    initial_scale: float = INITIAL_SCALE
    step: Step = "curvature"
    step_size: float = 1.0
    constraint: Constraint = "augmented"
    dual_rate: float = 0.03
    dual_max: float = 1000.0
    violation_weight: float = 1.0
    weight_decay: float = 0.0
    learning_rate: float = 0.05
    alpha: float = 1e-6
    beta: float = 0.5

    @classmethod
    def of(cls, schema: Schema) -> TrainerSettings:
        """The defaults for `schema`, and what its `[model]` table sets."""
        model = schema.model
        shape = Shape(len(schema.user), len(schema.ad), model.overlap, model.alone)
        variance = INTERACTION_VARIANCE / (len(schema.ad) * first_user_square(shape))
        return cls(
            shape=shape,
            user_radius=model.user_radius or USER_RADIUS * INITIAL_SCALE * shape.user_width**0.5,
            ad_radius=model.ad_radius or AD_RADIUS * (variance * shape.dimensions) ** 0.5,
            user_variance=tuple(feature.variance for feature in schema.user),
            ad_variance=tuple(feature.variance for feature in schema.ad),
            ad_latent_variance=variance,
            step=cast(Step, model.step),
            step_size=model.step_size,
        )

    @property
    def radii(self) -> Radii:
        """The radii of both tables."""
        return Radii(self.user_radius, self.ad_radius)


def first_user_square(shape: Shape) -> float:
    """The expected ‖ν_u‖² of a user whose values were all just born."""
    pairs = shape.user_features * (shape.user_features - 1) // 2
    alone = shape.user_features * shape.alone * INITIAL_SCALE**2
    return alone + pairs * shape.overlap * INITIAL_SCALE**4


@dataclass(frozen=True, slots=True)
class Trained:
    """The state after a chunk, and each event's pCTR before it was learned: float32 [n]."""

    state: State
    predicted: Float32s


def train(
    state: State,
    batch: Batch,
    schema: Schema,
    settings: TrainerSettings,
    kernel: Kernel = compiled,
) -> Trained:
    """Learn a chunk in order. Pure: `state` is unchanged.

    Values not seen before get a row: user latents from their hash and the seed, ad latents zero.
    Raises `SchemaMismatch` for a state of another schema, `InvalidInput` for a broken batch.
    """
    _check_schema(state, schema)
    births = _user_births(state.user, settings, state.seed), _ad_births(state.ad, settings)
    user, user_values = _grown(state.user, batch.user, kernel, births[0])
    ad, ad_values = _grown(state.ad, batch.ad, kernel, births[1])
    bias = np.array([state.bias, state.bias_precision])
    predicted = np.zeros(len(batch), np.float32)
    label = np.ascontiguousarray(batch.label, np.float32)
    sides = (_parameters(user), _parameters(ad), user_values, ad_values)
    check(settings.shape, *sides, label)
    kernel.learn(settings.shape, _rule(settings), *sides, label, bias, predicted)
    user = _closed(user, user_values, batch, settings.user_radius, settings)
    ad = _closed(ad, ad_values, batch, settings.ad_radius, settings)
    if settings.step == "curvature" and len(batch):
        user, ad = learned(user, settings.user_variance), learned(ad, settings.ad_variance)
    after = replace(
        state,
        user=user,
        ad=ad,
        bias=float(bias[0]),
        bias_precision=float(bias[1]),
    )
    return Trained(after, predicted)


def _check_schema(state: State, schema: Schema) -> None:
    if state.schema_hash != schema.hash:
        raise SchemaMismatch(
            f"the state was trained under schema {state.schema_hash}, not {schema.hash}; "
            "train a new line of snapshots for the changed schema"
        )


def _user_births(table: Table, settings: TrainerSettings, seed: int) -> Births:
    """User values start with latents drawn from N(0, initial_scale²) by hash, seed, position."""
    variance = in_force(table, settings.user_variance)

    def born(keys: Int64s, features: Int64s) -> Table:
        return first_rows(
            keys,
            features,
            normals(keys, settings.shape.user_width, seed) * settings.initial_scale,
            main_variance=variance,
            latent_variance=settings.user_latent_variance,
            accumulates_precision=settings.step == "curvature",
        )

    return born


def _ad_births(table: Table, settings: TrainerSettings) -> Births:
    """Ad values start with zero latents: a new creative is what its campaign is."""
    variance = in_force(table, settings.ad_variance)

    def born(keys: Int64s, features: Int64s) -> Table:
        return first_rows(
            keys,
            features,
            np.zeros((len(keys), settings.shape.dimensions)),
            main_variance=variance,
            latent_variance=settings.ad_latent_variance,
            accumulates_precision=settings.step == "curvature",
        )

    return born


def _grown(table: Table, block: Ragged, kernel: Kernel, births: Births) -> tuple[Table, Values]:
    """A copy of `table` with a row for every value of `block`, and the block's row numbers."""
    rows, first = kernel.resolve(table.keys, block.ids)
    cells = np.searchsorted(block.ptr, first, side="right") - 1
    new = births(block.ids[first], cells % block.features)
    both = (np.concatenate((getattr(table, name), getattr(new, name))) for name in Table.__slots__)
    return Table(*both), Values(rows, block.ptr)


def _closed(
    table: Table, values: Values, batch: Batch, radius: float, settings: TrainerSettings
) -> Table:
    """The table after the chunk: times of last touch, and the duals of what was touched."""
    features = max(1, (len(values.ptr) - 1) // max(len(batch), 1))
    event = np.repeat(np.arange(len(batch)), np.diff(values.ptr[::features]))
    last = np.full(len(table), -1)
    last[values.rows] = event  # of repeated rows the last assignment stands
    touched = np.flatnonzero(last >= 0)
    touched_ms, dual = table.touched_ms.copy(), table.dual
    touched_ms[touched] = np.maximum(touched_ms[touched], batch.time_ms[last[touched]])
    if settings.constraint in ("dual", "augmented"):
        limits = {"rate": settings.dual_rate, "largest": settings.dual_max}
        dual = ascend(table, touched, radius, **limits)
    return replace(table, touched_ms=touched_ms, dual=dual)


def _parameters(table: Table) -> Parameters:
    return Parameters(*(getattr(table, name) for name in Parameters._fields))


def _rule(settings: TrainerSettings) -> Rule:
    return Rule(
        step=STEPS.index(settings.step),
        constraint=CONSTRAINTS.index(settings.constraint),
        **{name: float(getattr(settings, name)) for name in Rule._fields[2:]},
    )
