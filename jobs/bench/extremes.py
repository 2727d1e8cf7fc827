"""The largest and smallest scores that a search over users and ads finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.offset import Model
from models.types import Float32s, Float64s, Int64s

_STARTS = 24
_PASSES = 20


@dataclass(frozen=True, slots=True)
class Extremes:
    """Scores that some user and ad have: nothing lies outside what a certificate says of all."""

    low: float
    high: float


def extremes(
    model: Model, ad_latent: Float32s, ad_main: Float32s, random: np.random.Generator
) -> Extremes:
    """Climb from random users: the best value of one feature at a time, then the best ad.

    Every step keeps or raises the score, which is linear in each feature's value. Users have one
    value of each feature. `ad_latent`: float32 [n, D]; `ad_main`: float32 [n].
    """
    values = [np.flatnonzero(model.user_feature == k) for k in range(model.user_features)]
    climbs = (
        [_climb(model, sign, values, ad_latent, ad_main, random) for _ in range(_STARTS)]
        for sign in (-1.0, 1.0)
    )
    lows, highs = climbs
    return Extremes(min(lows), max(highs))


def _climb(
    model: Model,
    sign: float,
    values: list[Int64s],
    ad_latent: Float32s,
    ad_main: Float32s,
    random: np.random.Generator,
) -> float:
    rows = [int(random.choice(each)) for each in values]
    ad, best = int(random.integers(len(ad_main))), -np.inf
    for _ in range(_PASSES):
        for k, each in enumerate(values):
            worth = _worth(model, rows, k, each, ad_latent[ad])
            rows[k] = int(each[np.argmax(sign * worth)])
        scores = ad_latent @ _user(model, rows) + ad_main
        ad = int(np.argmax(sign * scores))
        found = sign * (float(scores[ad]) + float(model.user_main[rows].sum()) + model.bias)
        if found <= best:
            break
        best = found
    return sign * best


def _user(model: Model, rows: list[int]) -> Float32s:
    """ν_u of the user with these rows of values, one a feature."""
    where, flat = model.layout, model.user_latent[rows].ravel()
    return np.concatenate((flat[where.left] * flat[where.right], flat[where.alone]))


def _worth(model: Model, rows: list[int], feature: int, values: Int64s, ad: Float32s) -> Float64s:
    """What each value of one feature would add to the score of the user and the ad."""
    where, flat = model.layout, model.user_latent[rows].ravel()
    width = model.user_latent.shape[1]
    slopes = np.zeros(len(flat))
    pairs = len(where.left)
    np.add.at(slopes, where.left, flat[where.right] * ad[:pairs])
    np.add.at(slopes, where.right, flat[where.left] * ad[:pairs])
    np.add.at(slopes, where.alone, ad[pairs:])
    own = slopes[feature * width : (feature + 1) * width]
    return np.asarray(model.user_latent[values] @ own + model.user_main[values])
