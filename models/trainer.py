"""One pass over a chunk of events: each is predicted, then learned; then the duals ascend.

Step rules (`TrainerSettings.step`):

- `curvature`: each parameter keeps a precision π, at first that of its prior, and an event with
  slopes `j = ∂s/∂θ` and `V = Σ j²/π` moves it by `−(σ(x) − y) j/π`, where x solves
  `x = s − V (σ(x) − y)`: the score after the step, so that one click cannot overshoot. π then grows
  by `j² / (1/(σ(x)(1 − σ(x))) + V)`, the event's information on one parameter while the others
  are uncertain too. Prior variances of main effects are learned, see `priors`.
- `linear`: the same to first order, `−(σ(s) − y) j / (π (1 + V h))` with `h = σ(s)(1 − σ(s))`, and
  π grows by `j² / (1/h + V)`: a diagonal Kalman filter. It sees the score before the step only.
- `adagrad`: `η0 / √(α + Σ ∇²)`.
- `published`: `η0 / (α + (Σ |∇|)^β)`, the step of arXiv 2312.05052.

Constraints (`TrainerSettings.constraint`) act at each touch of a vector, so a frequent one feels
them more often: `dual` shrinks by the implicit form `v ← (v − η∇) / (1 + η μ)`; `augmented` adds
the violation `‖v‖²/r² − 1` that the step has just made to μ; `projection` projects; `clipping`
scales the gradient of each latent vector to norm `clip_norm` at most before its step. The penalty
stays out of the step's accumulators. The explicit form of the shrink, `v ← v − η μ v`, turns the
vector round once η μ > 1 and grows it without bound once η μ > 2; the implicit form cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from models.constraints import Radii, ascend
from models.errors import SchemaMismatch
from models.interactions import INITIAL_SCALE, by_entry, weighed
from models.interactions import learned as learned_interactions
from models.kernels import (
    CONSTRAINTS,
    PRECISION_STEPS,
    SHRINKS,
    STEPS,
    Constraint,
    Kernel,
    Parameters,
    Rule,
    Shape,
    Shrink,
    Step,
    Values,
    check,
    compiled,
)
from models.kernels.parallel import Parallel, room
from models.offset import State, Table, sigmoid
from models.priors import Births, first_rows, in_force, learned, normals
from models.types import Batch, Float32s, Float64s, Int64s, Ragged
from models.vocabulary import EVERYTHING, Living, extended

if TYPE_CHECKING:
    from models.features import Schema


USER_RADIUS = 2.5
"""Radius of user vectors over their expected norm at birth, `initial_scale · √d`.

1.5 × the 99.9th percentile of healthy runs is 1.8 to 2.7 (KuaiRand's two labels and two seeded
markets, 22 k to 300 k events; o and s of 2/0, 1/2, 2/4, 4/4 and 8/8): user vectors hardly move.
"""

AD_RADIUS = 1.2
"""Radius of ad vectors.

1.5 × the 99.9th percentile of healthy runs: 0.82 on seeded markets, where categories do meet
interests; on the KuaiRand log, whose interactions earn no weight, it is 0.06. The norm that a share
of the variance of s needs does not depend on o, s, K and A: a vector of norm r lets s vary by
`(r · initial_scale)²` between values of one user feature, 0.06 at this radius.
"""


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How a chunk is learned.

    `step_size` multiplies every step (1 is right; an absurd one diverges, and the gate refuses),
    `latent_step` those of latent vectors once more. `user_radius` and `ad_radius` bound each latent
    vector's norm. Variances are those of the priors: of each feature's main effects (None: learned
    from the data), of each entry of user latents; those of ad latents are learned, or with
    `learns_interactions` off stay at their first guess.
    `weighs_interactions`: whether interactions serve by the weight that they have earned, or in
    full, see `interactions`. `dual_rate`: ρ of the dual ascent; `dual_max`: the largest μ;
    `violation_weight`: weight of the present violation in the augmented form. `shrink`: the form of
    the shrink by μ. `clip_norm`: largest norm of a latent vector's gradient under the constraint
    `clipping`. `initial_scale`: sd of a user value's first latents. `weight_decay`: a fixed λ for
    every latent vector. `learning_rate` (η0), `alpha` and `beta` are those of the AdaGrad and
    published steps.
    """

    shape: Shape
    user_radius: float
    ad_radius: float
    user_variance: tuple[float | None, ...]
    ad_variance: tuple[float | None, ...]
    user_latent_variance: float = 0.1
    initial_scale: float = INITIAL_SCALE
    weighs_interactions: bool = True
    learns_interactions: bool = True
    step: Step = "curvature"
    step_size: float = 1.0
    latent_step: float = 1.0
    constraint: Constraint = "augmented"
    shrink: Shrink = "implicit"
    dual_rate: float = 0.03
    dual_max: float = 1000.0
    violation_weight: float = 3.0
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    learning_rate: float = 0.05
    alpha: float = 1e-6
    beta: float = 0.5

    @classmethod
    def of(cls, schema: Schema) -> TrainerSettings:
        """The defaults for `schema`, and what its `[model]` table sets."""
        model = schema.model
        shape = Shape(len(schema.user), len(schema.ad), model.overlap, model.alone)
        return cls(
            shape=shape,
            user_radius=model.user_radius or USER_RADIUS * INITIAL_SCALE * shape.user_width**0.5,
            ad_radius=model.ad_radius or AD_RADIUS,
            user_variance=tuple(feature.variance for feature in schema.user),
            ad_variance=tuple(feature.variance for feature in schema.ad),
            step=cast(Step, model.step),
            step_size=model.step_size,
        )

    @property
    def keeps_precisions(self) -> bool:
        """Whether accumulators are precisions, which begin at a prior, or sums of gradients."""
        return self.step in PRECISION_STEPS

    @property
    def radii(self) -> Radii:
        """The radii of both tables."""
        return Radii(self.user_radius, self.ad_radius)


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
    *,
    living: Living = EVERYTHING,
    threads: int = 1,
) -> Trained:
    """Learn a chunk in order. Pure: `state` is unchanged.

    Values not seen before get a row: user latents from their hash and the seed, ad latents zero.
    Rows of `state` that are not among `living` are left behind.
    One thread gives the same state bit for bit from the same input; more are faster on large
    chunks, but what they give is not reproducible, see `kernels.parallel`.
    Raises `SchemaMismatch` for a state of another schema, `InvalidInput` for a broken batch.
    """
    _check_schema(state, schema)
    if threads > 1:
        kernel = Parallel(kernel, threads)
    births = _user_births(settings, state.seed), _ad_births(settings)
    user, user_values = _grown(
        state.user, batch.user, kernel, births[0], living.user, room(threads)
    )
    ad, ad_values = _grown(state.ad, batch.ad, kernel, births[1], living.ad, room(threads))
    priors = _priors(state, settings)
    bias = np.array([state.bias, state.bias_precision])
    scores = np.zeros((len(batch), 2), np.float32)
    label = np.ascontiguousarray(batch.label, np.float32)
    sides = (_parameters(user, *priors[0]), _parameters(ad, *priors[1]), user_values, ad_values)
    check(settings.shape, *sides, label)
    kernel.learn(settings.shape, rule_of(settings), *sides, label, bias, scores)
    user, ad = _without_room(user, room(threads)), _without_room(ad, room(threads))
    user = _closed(user, user_values, batch, settings.user_radius, settings)
    ad = _closed(ad, ad_values, batch, settings.ad_radius, settings)
    before = interactions = state.interactions
    if settings.weighs_interactions:
        interactions = weighed(before, scores, label)
    else:
        before = interactions = replace(before, weight=1.0)
    user_variance, ad_variance = _variances(state, settings)
    if settings.keeps_precisions and len(batch):
        user, user_variance = learned(user, user_variance, settings.user_variance)
        ad, ad_variance = learned(ad, ad_variance, settings.ad_variance)
        if settings.learns_interactions:
            interactions = learned_interactions(
                ad, interactions, settings.shape, settings.ad_radius
            )
    predicted = sigmoid(scores[:, 0] + before.served * scores[:, 1]).astype(np.float32)
    after = replace(
        state,
        user=user,
        ad=ad,
        bias=float(bias[0]),
        bias_precision=float(bias[1]),
        user_variance=user_variance,
        ad_variance=ad_variance,
        interactions=interactions,
    )
    return Trained(after, predicted)


def _check_schema(state: State, schema: Schema) -> None:
    if state.schema_hash != schema.hash:
        raise SchemaMismatch(
            f"the state was trained under schema {state.schema_hash}, not {schema.hash}; "
            "train a new line of snapshots for the changed schema"
        )


def _variances(state: State, settings: TrainerSettings) -> tuple[Float64s, Float64s]:
    """The prior variances of both sides' main effects: float64 [K] and [A]."""
    return (
        in_force(state.user_variance, settings.user_variance),
        in_force(state.ad_variance, settings.ad_variance),
    )


_Priors = tuple[Float32s, Float32s]


def _priors(state: State, settings: TrainerSettings) -> tuple[_Priors, _Priors]:
    """Prior precisions of both sides, of latents and of main effects, see `kernels.Parameters`.

    Sums of gradients have no prior.
    """
    shape, scale = settings.shape, float(settings.keeps_precisions)
    mains = [(scale / each).astype(np.float32) for each in _variances(state, settings)]
    width = (shape.user_features, shape.user_width)
    user = np.full(width, scale / settings.user_latent_variance, np.float32)
    ad = by_entry(scale / state.interactions.variance, shape)
    return (user, mains[0]), (ad, mains[1])


def _user_births(settings: TrainerSettings, seed: int) -> Births:
    """User values start with latents drawn from N(0, initial_scale²) by hash, seed, position."""

    def born(keys: Int64s, features: Int64s) -> Table:
        latent = normals(keys, settings.shape.user_width, seed) * settings.initial_scale
        return first_rows(keys, features, latent)

    return born


def _ad_births(settings: TrainerSettings) -> Births:
    """Ad values start with zero latents: a new creative is what its campaign is."""

    def born(keys: Int64s, features: Int64s) -> Table:
        return first_rows(keys, features, np.zeros((len(keys), settings.shape.dimensions)))

    return born


def _grown(
    table: Table, block: Ragged, kernel: Kernel, births: Births, living: Int64s | None, spare: int
) -> tuple[Table, Values]:
    """A copy of `table`'s living rows with one for every value of `block`, and their numbers.

    `spare` rows more are for the kernel's own use.
    """
    rows, first = kernel.resolve(table.keys if living is None else table.keys[living], block.ids)
    cells = np.searchsorted(block.ptr, first, side="right") - 1
    none = np.zeros(spare, np.int64)
    new = births(
        np.concatenate((block.ids[first], none)), np.concatenate((cells % block.features, none))
    )
    return extended(table, living, new), Values(rows, block.ptr)


def _without_room(table: Table, spare: int) -> Table:
    return Table(*(getattr(table, name)[: len(table) - spare] for name in Table.__slots__))


def _closed(
    table: Table, values: Values, batch: Batch, radius: float, settings: TrainerSettings
) -> Table:
    """The table after the chunk: times of last touch, and the duals."""
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


def _parameters(table: Table, latent_prior: Float32s, main_prior: Float32s) -> Parameters:
    own = {name: getattr(table, name) for name in Parameters._fields[:6]}
    return Parameters(**own, latent_prior=latent_prior, main_prior=main_prior)


def rule_of(settings: TrainerSettings) -> Rule:
    """The step rule and the constraint as the kernels take them."""
    return Rule(
        step=STEPS.index(settings.step),
        constraint=CONSTRAINTS.index(settings.constraint),
        shrink=SHRINKS.index(settings.shrink),
        **{name: float(getattr(settings, name)) for name in Rule._fields[3:]},
    )
