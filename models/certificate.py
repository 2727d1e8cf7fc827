"""A range that no score can leave, whatever the user: computed on a published model's own values.

For each pair (k, l) of user features `m_kl = max ‖v_kl ∘ v_lk‖` over their values, for each
feature `m_k`, the longest of its blocks for itself. By Cauchy–Schwarz a block, an ad's inner
product with any user is at most `B_a = Σ_blocks ‖ν_a,block‖ · m_block`, so s lies in

    [b + Σ_k min w_k + min_a (w_a − B_a),  b + Σ_k max w_k + max_a (w_a + B_a)].

A value never seen scores zeros, which are inside: 0 is a candidate of every minimum and maximum of
main effects. A mean of several values is inside too: ‖x ∘ y‖ is convex in x for a fixed y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.offset import Model
from models.types import Bools, Float32s, Float64s

_SLACK = 1e-5
"""Relative widening, for the float32 sums of the scores that are certified."""
_EXACT_PAIRS = 4_000_000
"""Up to this many pairs of values the largest is found by trying all."""
_ROWS_AT_ONCE = 256
_MOST_KEPT = 4_000


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """low ≤ s ≤ high for every user and every given ad; `bias` is the model's b."""

    low: float
    high: float
    bias: float


def score_range(model: Model, ad_latent: Float32s, ad_main: Float32s) -> ScoreRange:
    """Certify the scores of a catalog: ν_a float32 [n, D] and Σ w_a float32 [n], as `ad_vectors`.

    With no ads the range is that of an ad without any trained value.
    """
    user_low, user_high = _main_range(model)
    reach = inner_product_bounds(model, ad_latent)
    main = ad_main.astype(np.float64)
    ad_low = float((main - reach).min()) if len(main) else 0.0
    ad_high = float((main + reach).max()) if len(main) else 0.0
    slack = _SLACK * (1 + sum(map(abs, (model.bias, user_low, user_high, ad_low, ad_high))))
    low, high = user_low + ad_low - slack, user_high + ad_high + slack
    return ScoreRange(model.bias + low, model.bias + high, model.bias)


def inner_product_bounds(model: Model, ad_latent: Float32s) -> Float64s:
    """B_a of each ad, the largest |ν_u · ν_a| of any user: float64 [n]."""
    if not len(ad_latent) or not ad_latent.shape[1]:
        return np.zeros(len(ad_latent))
    bounds, starts = block_bounds(model), _block_starts(model)
    wide = ad_latent.astype(np.float64)
    squares = np.add.reduceat(wide * wide, starts, axis=1)
    return np.asarray(np.sqrt(squares) @ bounds)


def block_bounds(model: Model) -> Float64s:
    """m_kl of each pair in the order of the user vector's blocks, then m_k: float64 [blocks]."""
    features = range(model.user_features)
    squares = [_squares(model, k) for k in features]
    pairs = [
        _longest_product(_block(model, squares[k], other - 1), _block(model, squares[other], k))
        for k in features
        for other in range(k + 1, model.user_features)
    ]
    alone = (model.user_features - 1) * model.overlap
    alones = [float(np.sqrt(s[:, alone:].sum(axis=1).max(initial=0.0))) for s in squares]
    return np.array(pairs + (alones if model.alone else []))


def _squares(model: Model, feature: int) -> Float64s:
    """The squared entries of every vector of one feature: float64 [values, d]."""
    rows = model.user_latent[model.user_feature == feature].astype(np.float64)
    return np.asarray(rows * rows)


def _block(model: Model, squares: Float64s, block: int) -> Float64s:
    return squares[:, block * model.overlap : (block + 1) * model.overlap]


def _block_starts(model: Model) -> list[int]:
    pairs = model.user_features * (model.user_features - 1) // 2
    alones = model.user_features if model.alone else 0
    first_alone = pairs * model.overlap
    return [pair * model.overlap for pair in range(pairs)] + [
        first_alone + k * model.alone for k in range(alones)
    ]


def _longest_product(left: Float64s, right: Float64s) -> float:
    """max ‖x ∘ y‖ over rows, from their squares [m, o] and [n, o]: √ max Σ x²y².

    Exact unless too many pairs are left once dominated rows are gone; then bounded by
    Cauchy–Schwarz with the largest 4-norms.
    """
    if not len(left) or not len(right):
        return 0.0
    if len(left) * len(right) > _EXACT_PAIRS:
        left, right = undominated(left), undominated(right)
    if len(left) * len(right) > _EXACT_PAIRS:
        quartic = (left**2).sum(axis=1).max() * (right**2).sum(axis=1).max()
        return float(quartic**0.25)
    return float(np.sqrt((left @ right.T).max()))


def undominated(squares: Float64s) -> Float64s:
    """Rows that no other row exceeds in every entry: only they can be part of the largest product.

    Goes from the largest sum down, where a row can only be dominated by those before it; gives up,
    returning more rows than it must, when too many are left.
    """
    ordered = squares[np.argsort(-squares.sum(axis=1), kind="stable")]
    kept = ordered[:0]
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        rows = ordered[start : start + _ROWS_AT_ONCE]
        rows = rows[~_is_exceeded(rows, kept)]
        earlier = np.tri(len(rows), k=-1, dtype=np.bool_)
        among = np.all(rows[None, :, :] >= rows[:, None, :], axis=2) & earlier
        kept = np.concatenate((kept, rows[~np.any(among, axis=1)]))
        if len(kept) > _MOST_KEPT:
            return np.concatenate((kept, ordered[start + _ROWS_AT_ONCE :]))
    return kept


def _is_exceeded(rows: Float64s, by: Float64s) -> Bools:
    return np.asarray(np.any(np.all(by[None, :, :] >= rows[:, None, :], axis=2), axis=1))


def _main_range(model: Model) -> tuple[float, float]:
    """Σ_k min w_k and Σ_k max w_k; a missing value of the table counts as 0."""
    main = model.user_main.astype(np.float64)
    each = [main[model.user_feature == k] for k in range(model.user_features)]
    low = sum(float(values.min(initial=0.0)) for values in each)
    return low, sum(float(values.max(initial=0.0)) for values in each)
