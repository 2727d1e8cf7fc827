"""The highest and lowest scores that any user and any given ad reach under a model, by search.

Nothing here looks at the certificate or uses its mathematics. A score is linear in each user
feature's vector while the others stay, so no mean of several values scores beyond all of them:
users of one value a feature, or of one never seen, hold the extremes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.offset import Model
from models.types import Float64s, Int64s, Ragged

UNSEEN = np.int64(-(2**62)) + np.arange(64, dtype=np.int64)
"""A value of each feature that no table holds."""
MOST_PAIRS = 30_000
"""Up to so many pairs of users and ads all are scored; of more the best are sought."""
_EXTREME_ADS = 12
_STARTS = 6


@dataclass(frozen=True, slots=True)
class Extremes:
    """The lowest and highest score found."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Values:
    """One user feature's values: keys int64 [n], latent vectors [n, d] and main effects [n]."""

    keys: Int64s
    latent: Float64s
    main: Float64s


def extremes(model: Model, ads: Ragged, seed: int = 0) -> Extremes:
    """Over every user when there are few; else over the users that ascent finds for extreme ads."""
    users = every_user(model) if count_users(model) * len(ads) <= MOST_PAIRS else None
    if users is None:
        return ascended(model, ads, seed)
    found = served(model, users, ads)
    return Extremes(float(found.min()), float(found.max()))


def served(model: Model, users: Ragged, ads: Ragged) -> Float64s:
    """The score of every user with every ad, twice: [users, 2 · ads].

    First as requests are served, in float64 on float32 vectors, then as batches are scored, all in
    float32.
    """
    latent, main = model.user_vectors(users)
    vectors, ad_main = model.ad_vectors(ads)
    wide = latent.astype(np.float64) @ vectors.T.astype(np.float64)
    wide += main.astype(np.float64)[:, None] + ad_main + model.bias
    rows, columns = np.divmod(np.arange(wide.size), max(len(ads), 1))
    narrow = model.score(users.take(rows), ads.take(columns)).reshape(wide.shape)
    return np.hstack((wide, narrow))


def values_of(model: Model) -> list[Int64s]:
    """Each user feature's values: one never seen, then those of the table."""
    return [
        np.append(UNSEEN[k], model.user_keys[model.user_feature == k])
        for k in range(model.user_features)
    ]


def count_users(model: Model) -> int:
    """How many users of one value a feature there are."""
    return math.prod(len(values) for values in values_of(model))


def every_user(model: Model) -> Ragged:
    """Each of them."""
    grid = np.meshgrid(*values_of(model), indexing="ij")
    return users_of(np.stack([axis.ravel() for axis in grid], axis=1))


def users_of(values: Int64s) -> Ragged:
    """Users with one value a feature: int64 [n, features]."""
    return Ragged(values.ravel(), np.arange(values.size + 1), values.shape[1])


def users_of_several(model: Model, n: int, seed: int) -> Ragged:
    """Random users with one to three different values of each feature, some never seen."""
    rng, known = np.random.default_rng(seed), values_of(model)
    cells = [
        rng.permutation(values)[: rng.integers(1, 4)].tolist() for _ in range(n) for values in known
    ]
    ptr = np.cumsum([0, *map(len, cells)])
    return Ragged(np.array([value for cell in cells for value in cell]), ptr, model.user_features)


def ascended(model: Model, ads: Ragged, seed: int = 0) -> Extremes:
    """The extremes that coordinate ascent finds from several users for the most extreme ads."""
    vectors, main = (each.astype(np.float64) for each in model.ad_vectors(ads))
    tables = [_table(model, k) for k in range(model.user_features)]
    rng, found = np.random.default_rng(seed), []
    length = _typical_norm(model, rng)
    for sign in (-1.0, 1.0):
        likely = sign * main + np.linalg.norm(vectors, axis=1) * length
        for ad in np.argsort(-likely)[:_EXTREME_ADS]:
            users = [_ascent(model, tables, vectors[ad], sign, rng) for _ in range(_STARTS)]
            found.append(served(model, users_of(np.array(users)), ads.take(np.array([ad]))))
    return Extremes(float(np.min(found)), float(np.max(found)))


def _typical_norm(model: Model, rng: np.random.Generator) -> float:
    drawn = np.stack([rng.choice(values, 50) for values in values_of(model)], axis=1)
    return float(np.linalg.norm(model.user_vectors(users_of(drawn))[0], axis=1).max())


def _table(model: Model, feature: int) -> Values:
    """What a feature's values are, the one never seen first."""
    rows = model.user_feature == feature
    latent, main = model.user_latent[rows], model.user_main[rows]
    latent = np.vstack((np.zeros(latent.shape[1]), latent))
    return Values(values_of(model)[feature], latent, np.append(0.0, main))


def _ascent(
    model: Model, tables: list[Values], ad: Float64s, sign: float, rng: np.random.Generator
) -> Int64s:
    """A user whose score with the ad no change of a single value raises: int64 [features]."""
    chosen = [int(rng.integers(len(table.keys))) for table in tables]
    settled = 0
    while settled < len(tables):
        for k, table in enumerate(tables):
            block = np.array([each.latent[at] for each, at in zip(tables, chosen, strict=True)])
            reached = sign * (table.latent @ _slope(model, block, ad)[k] + table.main)
            best = int(reached.argmax())
            is_higher = reached[best] > reached[chosen[k]]
            settled = 0 if is_higher else settled + 1
            chosen[k] = best if is_higher else chosen[k]
    return np.array([table.keys[at] for table, at in zip(tables, chosen, strict=True)])


def _slope(model: Model, block: Float64s, ad: Float64s) -> Float64s:
    """∂s/∂(each feature's vector), [features, d], from the features' vectors and ν_a."""
    where, flat, pairs = model.layout, block.ravel(), len(model.layout.left)
    slope = np.zeros_like(flat)
    slope[where.left] = flat[where.right] * ad[:pairs]
    slope[where.right] = flat[where.left] * ad[:pairs]
    slope[where.alone] = ad[pairs:]
    return slope.reshape(block.shape)
