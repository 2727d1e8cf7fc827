"""What a score is made of: bias, main effects, and each pair of user features.

`s = b + Σ w_u + Σ w_a + ν_u · ν_a`, and the inner product is a sum over blocks: one for each pair
of user features, whose vectors are multiplied entry by entry before they meet the ad's vector, and
one for each user feature alone (see `models.offset`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from models.offset import Model, found
from models.types import Encoded, Float32s, Float64s


@dataclass(frozen=True, slots=True)
class Contribution:
    """A part of a score, in logits.

    `features`: what it belongs to, full names: none for the bias, one user or one ad feature for a
    main effect; for an interaction with the ad, two user features or one. `interacts` tells the
    last from a main effect.
    """

    features: tuple[str, ...]
    interacts: bool
    value: float


def contributions(
    model: Model,
    names: tuple[Sequence[str], Sequence[str]],
    user: Encoded,
    ad: Encoded,
    latent: Float32s,
) -> list[Contribution]:
    """The parts of one score, which sum to it but for the rounding of float32 sums.

    `names`: the full names of the schema's user and ad features; `latent`: float32 [D], the ad's
    vector as it is served.
    """
    of_user = _mains(model.user_keys, model.user_main, user)
    of_ad = _mains(model.ad_keys, model.ad_main, ad)
    mains = zip((*names[0], *names[1]), (*of_user, *of_ad), strict=True)
    return [
        Contribution((), False, float(model.bias)),
        *(Contribution((name,), False, value) for name, value in mains),
        *_interactions(model, names[0], user, latent),
    ]


def _mains(keys: np.ndarray, main: Float32s, encoded: Encoded) -> list[float]:
    """Each feature's main effect, the mean over its values."""
    if not len(keys):
        return [0.0] * len(encoded.counts)
    rows, seen = found(keys, encoded.ids)
    values = np.where(seen, main[rows], 0.0)
    starts = np.cumsum(encoded.counts, dtype=np.int64) - encoded.counts
    means: Float64s = np.add.reduceat(values, starts) / encoded.counts
    listed: list[float] = means.tolist()
    return listed


def _interactions(
    model: Model, names: Sequence[str], user: Encoded, latent: Float32s
) -> list[Contribution]:
    products = model.user_vector(user)[0].astype(np.float64) * latent
    pairs = list(combinations(names, 2))
    split = len(pairs) * model.overlap
    blocks = [*_sums(products[:split], len(pairs)), *_sums(products[split:], len(names))]
    about = [*pairs, *((name,) for name in names)]
    return [
        Contribution(features, True, value) for features, value in zip(about, blocks, strict=True)
    ]


def _sums(products: Float64s, blocks: int) -> list[float]:
    """The sum of each of so many blocks of equal length, which may be 0."""
    listed: list[float] = products.reshape(blocks, -1).sum(axis=1).tolist() if blocks else []
    return listed
