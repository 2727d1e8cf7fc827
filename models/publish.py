"""From the trainer's raw state to what may serve: project, certify, repair, index."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from models.certificate import ScoreRange, score_range
from models.constraints import Projection, Radii, project
from models.index import AdIndex, AdSet
from models.offset import Model, State
from models.schema import Schema
from models.types import Float32s, in_slices
from models.vocabulary import Living, collected

_REPAIR_MARGIN = 1e-6
"""A repair shrinks by this much more than it must, so that rounding cannot break the promise."""


@dataclass(frozen=True, slots=True)
class Published:
    """A model ready to serve, and how it came from the raw state.

    `largest_ratio`: largest published norm over its radius; `reach`: the certified range of s over
    all users and the indexed ads; `shrink`: the factor of a repair, 1 for none; `index_error`:
    largest difference between the index's vectors and those it was built from.
    """

    model: Model
    index: AdIndex
    projection: Projection
    largest_ratio: float
    reach: ScoreRange
    shrink: float
    index_error: float


def publish(state: State, ads: AdSet, schema: Schema, radii: Radii) -> Published:
    """Project `state` onto `radii`, keep the promise on pCTR by shrinking scores, index the ads."""
    model, projection = project(state, radii, schema)
    vectors = index_vectors(model, ads)
    reach = _reach(model, vectors)
    shrink = _shrink(reach, *promise(schema))
    if shrink < 1:
        model = shrunk(model, shrink)
        vectors = index_vectors(model, ads)
        reach = _reach(model, vectors)
    index = AdIndex.build(ads.ad_ids, ads.features_version, vectors, _typical_length(model))
    return Published(
        model=model,
        index=index,
        projection=projection,
        largest_ratio=_largest_ratio(model, radii),
        reach=reach,
        shrink=shrink,
        index_error=_largest_difference(index.vectors, vectors),
    )


def raw_model(state: State, schema: Schema, since_ms: int) -> Model:
    """The parameters before projection and repair, of values touched at `since_ms` or later.

    Events since then are scored as by the whole raw state, of which this is no second copy.
    """
    touched = [np.flatnonzero(side.touched_ms >= since_ms) for side in (state.user, state.ad)]
    model, _ = project(collected(state, Living(*touched)), Radii(math.inf, math.inf), schema)
    return model


def promise(schema: Schema) -> tuple[float, float]:
    """The promised range of s: the logits of the promised click probabilities."""
    return _logit(schema.model.p_min), _logit(schema.model.p_max)


def shrunk(model: Model, factor: float) -> Model:
    """The model with s replaced by b + factor·(s − b): every user's ranking by pCTR is kept.

    Scaling one side's vectors and both sides' main effects scales every term of s but the bias.
    """
    scale = np.float32(factor)
    return replace(
        model,
        user_main=model.user_main * scale,
        ad_main=model.ad_main * scale,
        ad_latent=model.ad_latent * scale,
    )


def index_vectors(model: Model, ads: AdSet) -> Float32s:
    """What the index holds for each ad, [ν_a, w_a, log bid]: float32 [n, D + 2]."""
    latent, main = model.ad_vectors(ads.features)
    return np.column_stack((latent, main, ads.log_bid)).astype(np.float32, copy=False)


def _reach(model: Model, vectors: Float32s) -> ScoreRange:
    return score_range(model, vectors[:, :-2], vectors[:, -2])


def _typical_length(model: Model) -> float:
    """‖ν_u‖ of a user with the root mean square of each feature's values, at least 0.01.

    It only orders the index's rows well, so it need not be true of any user.
    """
    squares = np.zeros((model.user_features, model.user_latent.shape[1]))
    for rows in in_slices(len(model.user_latent)):
        members = model.user_feature[rows] == np.arange(model.user_features)[:, None]
        squares += members.astype(np.float32) @ model.user_latent[rows] ** 2
    counts = np.bincount(model.user_feature, minlength=model.user_features)
    flat, where = (squares / np.maximum(counts, 1)[:, None]).ravel(), model.layout
    pairs = float(flat[where.left] @ flat[where.right])
    return max(math.sqrt(pairs + float(flat[where.alone].sum())), 0.01)


def _largest_ratio(model: Model, radii: Radii) -> float:
    sides = ((model.user_latent, radii.user), (model.ad_latent, radii.ad))
    norms = [np.sqrt(np.einsum("ij,ij->i", v, v, dtype=np.float64)) / r for v, r in sides]
    return float(max((side.max() for side in norms if len(side)), default=0.0))


def _largest_difference(first: Float32s, second: Float32s) -> float:
    if np.array_equal(first, second):
        return 0.0
    return float(np.abs(first - second).max())


def _shrink(reach: ScoreRange, low: float, high: float) -> float:
    """The largest factor at which the certified range fits the promise; 1 if it fits already.

    A bias outside the promise cannot be mended by shrinking: the gate's check refuses it.
    """
    factors = [1.0]
    for room, distance in (
        (high - reach.bias - reach.fixed, reach.high - reach.bias - reach.fixed),
        (reach.bias - reach.fixed - low, reach.bias - reach.fixed - reach.low),
    ):
        if distance > room > 0:
            factors.append(room / distance * (1 - _REPAIR_MARGIN))
    return min(factors)


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
