"""One pass over a chunk of events: each is predicted, then learned; then the duals ascend.

Step rules (`TrainerSettings.step`):

- `curvature`: each parameter keeps a precision `π = 1/τ² + Σ h j²`, `h = p(1 − p)`, `j = ∂s/∂θ`,
  and moves by `−e j / (π (1 + V h))`, `e = p − y`, `V = Σ j²/π`: a diagonal Kalman filter.
- `adagrad`: `η0 / √(α + Σ ∇²)`.
- `published`: `η0 / (α + (Σ |∇|)^β)`, the step of arXiv 2312.05052.

Constraints (`TrainerSettings.constraint`) act at each touch of a vector, so a frequent one feels
them more often: `dual` shrinks by the implicit form `v ← (v − η∇) / (1 + η μ)`; `augmented` adds
the violation `‖v‖²/r² − 1` that the step has just made to μ; `projection` projects. The penalty
stays out of the step's accumulators. The explicit form of the shrink can turn NaN, this one cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
from models.types import Batch, Float32s, Float64s, Int64s, Ragged

if TYPE_CHECKING:
    from models.features import Schema


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How a chunk is learned.

    `step_size` multiplies every step (1 is right; an absurd one diverges, and the gate refuses).
    `user_radius` and `ad_radius` bound each latent vector's norm. `dual_rate`: ρ of the dual
    ascent; `dual_max`: the largest μ. `violation_weight`: weight of the present violation in the
    augmented form. Variances are those of the priors: of main effects (per feature), of user
    and ad latents. `initial_scale`: sd of a user value's first latents.
    """

    shape: Shape
    user_radius: float
    ad_radius: float
    user_variance: tuple[float, ...]
    ad_variance: tuple[float, ...]
    step: Step = "curvature"
    step_size: float = 1.0
    constraint: Constraint = "augmented"
    dual_rate: float = 0.03
    dual_max: float = 1000.0
    violation_weight: float = 1.0
    weight_decay: float = 0.0
    user_latent_variance: float = 1.0
    ad_latent_variance: float = 0.01
    initial_scale: float = 0.2
    learning_rate: float = 0.05
    alpha: float = 1e-6
    beta: float = 0.5

    @classmethod
    def of(cls, schema: Schema) -> TrainerSettings:
        """The defaults for `schema`."""
        model = schema.model
        shape = Shape(len(schema.user), len(schema.ad), model.overlap, model.alone)
        return cls(
            shape=shape,
            user_radius=0.5 * shape.user_width**0.5,
            ad_radius=0.15 * shape.dimensions**0.5,
            user_variance=tuple(f.variance or DEFAULT_VARIANCE for f in schema.user),
            ad_variance=tuple(f.variance or DEFAULT_VARIANCE for f in schema.ad),
        )

    @property
    def radii(self) -> Radii:
        """The radii of both tables."""
        return Radii(self.user_radius, self.ad_radius)


DEFAULT_VARIANCE = 0.3


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
    user, user_values = _grown(state.user, batch.user, kernel, user_births(settings, state.seed))
    ad, ad_values = _grown(state.ad, batch.ad, kernel, ad_births(settings))
    bias = np.array([state.bias, state.bias_precision])
    predicted = np.zeros(len(batch), np.float32)
    label = np.ascontiguousarray(batch.label, np.float32)
    sides = (_parameters(user), _parameters(ad), user_values, ad_values)
    check(settings.shape, *sides, label)
    kernel.learn(settings.shape, _rule(settings), *sides, label, bias, predicted)
    learned = replace(
        state,
        user=_closed(user, user_values, batch, settings.user_radius, settings),
        ad=_closed(ad, ad_values, batch, settings.ad_radius, settings),
        bias=float(bias[0]),
        bias_precision=float(bias[1]),
    )
    return Trained(learned, predicted)


def _check_schema(state: State, schema: Schema) -> None:
    if state.schema_hash != schema.hash:
        raise SchemaMismatch(
            f"the state was trained under schema {state.schema_hash}, not {schema.hash}; "
            "train a new line of snapshots for the changed schema"
        )


Births = Callable[[Int64s, Int64s], Table]
"""Makes the first rows of values: from keys int64 [n] and their features int64 [n]."""


def user_births(settings: TrainerSettings, seed: int) -> Births:
    """User values start with latents drawn from N(0, initial_scale²) by hash, seed, position."""

    def born(keys: Int64s, features: Int64s) -> Table:
        latent = normals(keys, settings.shape.user_width, seed) * settings.initial_scale
        variance = np.array(settings.user_variance)[features]
        return _born(settings, keys, features, latent, variance, settings.user_latent_variance)

    return born


def ad_births(settings: TrainerSettings) -> Births:
    """Ad values start with zero latents: a new creative is what its campaign is."""

    def born(keys: Int64s, features: Int64s) -> Table:
        latent = np.zeros((len(keys), settings.shape.dimensions))
        variance = np.array(settings.ad_variance)[features]
        return _born(settings, keys, features, latent, variance, settings.ad_latent_variance)

    return born


def _born(
    settings: TrainerSettings,
    keys: Int64s,
    features: Int64s,
    latent: Float64s,
    main_variance: Float64s,
    latent_variance: float,
) -> Table:
    # Only the curvature step's accumulator starts at the prior's precision; sums start at zero.
    prior = 1.0 if settings.step == "curvature" else 0.0
    n = len(keys)
    return Table(
        keys=keys,
        latent=latent.astype(np.float32),
        main=np.zeros(n, np.float32),
        latent_precision=np.full(latent.shape, prior / latent_variance, np.float32),
        main_precision=(prior / main_variance).astype(np.float32),
        dual=np.zeros(n, np.float32),
        touched_ms=np.zeros(n, np.int64),
        feature=features.astype(np.uint8),
    )


def normals(keys: Int64s, width: int, seed: int) -> Float64s:
    """Standard normal draws that depend on (key, seed, position) alone: float64 [n, width].

    splitmix64 of each of the three in turn, then Box–Muller.
    """
    start = _splitmix64(keys.view(np.uint64) ^ _splitmix64(np.uint64(seed % 2**64)))
    positions = np.arange(2 * width, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        bits = _splitmix64(start[:, None] + positions[None, :])
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:, :width]))
    return np.asarray(radius * np.cos(2.0 * np.pi * uniform[:, width:]))


def _splitmix64(values: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        z = np.asarray(values + np.uint64(0x9E3779B97F4A7C15))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


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
