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
from models.types import Float32s

_REPAIR_MARGIN = 1e-6
"""A repair shrinks by this much more than it must, so that rounding cannot break the promise."""


@dataclass(frozen=True, slots=True)
class Published:
    """A model ready to serve, and how it came from the raw state.

    `raw`: the same parameters before projection and repair; `largest_ratio`: largest published
    norm over its radius; `reach`: the certified range of s over all users and the indexed ads;
    `shrink`: the factor of a repair, 1 for none; `index_error`: largest difference between the
    index's vectors and those it was built from.
    """

    model: Model
    raw: Model
    index: AdIndex
    projection: Projection
    largest_ratio: float
    reach: ScoreRange
    shrink: float
    index_error: float


def publish(state: State, ads: AdSet, schema: Schema, radii: Radii) -> Published:
    """Project `state` onto `radii`, keep the promise on pCTR by shrinking scores, index the ads."""
    model, projection = project(state, radii, schema)
    raw, _ = project(state, Radii(math.inf, math.inf), schema)
    vectors = index_vectors(model, ads)
    reach = _reach(model, vectors)
    shrink = _shrink(reach, *promise(schema))
    if shrink < 1:
        model = shrunk(model, shrink)
        vectors = index_vectors(model, ads)
        reach = _reach(model, vectors)
    index = AdIndex.build(ads.ad_ids, ads.features_version, vectors)
    return Published(
        model=model,
        raw=raw,
        index=index,
        projection=projection,
        largest_ratio=_largest_ratio(model, radii),
        reach=reach,
        shrink=shrink,
        index_error=float(np.abs(index.vectors - vectors).max(initial=0.0)),
    )


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
    return np.column_stack((latent, main, ads.log_bid)).astype(np.float32)


def _reach(model: Model, vectors: Float32s) -> ScoreRange:
    return score_range(model, vectors[:, :-2], vectors[:, -2])


def _largest_ratio(model: Model, radii: Radii) -> float:
    sides = ((model.user_latent, radii.user), (model.ad_latent, radii.ad))
    norms = [np.sqrt(np.einsum("ij,ij->i", v, v, dtype=np.float64)) / r for v, r in sides]
    return float(max((side.max() for side in norms if len(side)), default=0.0))


def _shrink(reach: ScoreRange, low: float, high: float) -> float:
    """The largest factor at which the certified range fits the promise; 1 if it fits already.

    A bias outside the promise cannot be mended by shrinking: the gate's check refuses it.
    """
    factors = [1.0]
    for edge, end, beyond in ((high, reach.high, 1), (low, reach.low, -1)):
        if (end - edge) * beyond > 0 and (edge - reach.bias) * beyond > 0:
            factors.append((edge - reach.bias) / (end - reach.bias) * (1 - _REPAIR_MARGIN))
    return min(factors)


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
