"""A range that no score can leave, whatever the user: computed on a published model's own values.

For each pair (k, l) of user features `m_kl = max ‖v_kl ∘ v_lk‖` over their values, for each
feature `m_k`, the longest of its blocks for itself. By Cauchy–Schwarz a block, an ad's inner
product with any user is at most `B_a = Σ_blocks ‖ν_a,block‖ · m_block`, so s lies in

    [b + Σ_k min w_k + min_a (w_a − B_a),  b + Σ_k max w_k + max_a (w_a + B_a)].

A value never seen scores zeros, which are inside: 0 is a candidate of every minimum and maximum of
main effects. A mean of several values is inside too: ‖x ∘ y‖ is convex in x for a fixed y.

`m_kl² = max ⟨x, y⟩` over the squared blocks x of k and y of l, which have no negative entry. So no
product of x exceeds `min(⟨x, u⟩, ‖x‖ max ‖y‖)`, u being the largest entries of any y. Values whose
bound is not above the largest product found so far need no trying, nor memory: tables of millions
of values are read in slices, and a few hundred pairs decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from models.offset import Model
from models.types import Float32s, Float64s, Int64s

_Entries = TypeVar("_Entries", Float32s, Float64s)
_ROUNDING = 2.0**-23
"""Twice the largest relative error of one float32 operation."""
_SMALLEST = 1e-30
"""Covers what is too small for a float32's full precision."""
_MOST_VALUES = 255
"""Values of one feature of one event, see `types.Encoded`."""
_EXACT_PRODUCTS = 100_000_000
"""Up to this many multiplications of entries a pair of features is searched exactly."""
_FIRST_TRIED = 256
"""So many values of either side, those of the largest bounds, are tried first."""
_ROWS_AT_ONCE = 8192
_ADS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """low ≤ s ≤ high for every user and every given ad; `bias` is the model's b.

    `fixed`: the part of both ends' distances from b that no shrinking of scores takes away, because
    it covers the rounding of b itself.
    """

    low: float
    high: float
    bias: float
    fixed: float


@dataclass(frozen=True, slots=True)
class _Extent:
    """The values of one user feature: where they are, and how far their squared entries go.

    `rows`: int64 [values]; `entries`: float64 [d], the largest square of each entry; `lengths`:
    float64 [K − 1], the largest norm of each block of squares; `alone`: the largest norm of the
    block for itself.
    """

    rows: Int64s
    entries: Float64s
    lengths: Float64s
    alone: float


def score_range(model: Model, ad_latent: Float32s, ad_main: Float32s) -> ScoreRange:
    """Certify the scores of a catalog: ν_a float32 [n, D] and Σ w_a float32 [n], as `ad_vectors`.

    With no ads the range is that of an ad without any trained value. It holds for scores summed in
    float32, in whatever order.
    """
    user_low, user_high, user_size = _main_range(model)
    reach = inner_product_bounds(model, ad_latent)
    main = ad_main.astype(np.float64)
    ad_low = float((main - reach).min()) if len(main) else 0.0
    ad_high = float((main + reach).max()) if len(main) else 0.0
    size = abs(model.bias) + user_size + float((np.abs(main) + reach).max(initial=0.0))
    slack = _rounding(model) * (size + _SMALLEST)
    low, high = user_low + ad_low - slack, user_high + ad_high + slack
    fixed = _rounding(model) * (abs(model.bias) + _SMALLEST)
    return ScoreRange(model.bias + low, model.bias + high, model.bias, fixed)


def _rounding(model: Model) -> float:
    """Largest error of a float32 score, relative to the sum of the magnitudes of its terms.

    A sum of n terms is off by at most n/2²⁴ of the sum of their magnitudes, whatever the order, a
    product by 1/2²⁴ of itself, to first order (N. Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, sections 3.1 and 4.2); twice that covers the higher orders. Counted are the
    inner product, Σ w_u, w_a, b and the two means of values that each of its products may hold.
    Magnitudes obey the same bounds as the terms: Σ |ν_u ν_a| is at most B_a as well.
    """
    terms = model.ad_latent.shape[1] + model.user_features + 2 * _MOST_VALUES + 8
    return float(terms * _ROUNDING)


def inner_product_bounds(model: Model, ad_latent: Float32s) -> Float64s:
    """B_a of each ad, the largest |ν_u · ν_a| of any user: float64 [n]."""
    found, bounds = np.zeros(len(ad_latent)), block_bounds(model)
    for start in range(0, len(ad_latent), _ADS_AT_ONCE):
        norms = _block_norms(model, ad_latent[start : start + _ADS_AT_ONCE])
        found[start : start + _ADS_AT_ONCE] = norms @ bounds
    return found


def _block_norms(model: Model, ad_latent: Float32s) -> Float64s:
    """‖ν_a,block‖ of every ad and block, in the order of `block_bounds`: float64 [n, blocks]."""
    last = ad_latent.shape[1] - model.user_features * model.alone
    parts = ((ad_latent[:, :last], model.overlap), (ad_latent[:, last:], model.alone))
    blocks = [
        part.astype(np.float64).reshape(len(part), -1, width) for part, width in parts if part.size
    ]
    squares = [np.einsum("nko,nko->nk", each, each) for each in blocks]
    return np.asarray(np.sqrt(np.concatenate([np.zeros((len(ad_latent), 0)), *squares], axis=1)))


def block_bounds(model: Model, *, exact_products: int = _EXACT_PRODUCTS) -> Float64s:
    """m_kl of each pair in the order of the user vector's blocks, then m_k: float64 [blocks].

    A pair that takes more than `exact_products` multiplications gets a little more than its m_kl.
    """
    extents = [_extent(model, k) for k in range(model.user_features)]
    pairs = [
        _largest_product(model, (extents[k], other - 1), (extents[other], k), exact_products) ** 0.5
        for k in range(model.user_features)
        for other in range(k + 1, model.user_features)
    ]
    alones = [extent.alone for extent in extents]
    return np.array((pairs if model.overlap else []) + (alones if model.alone else []))


def _extent(model: Model, feature: int) -> _Extent:
    """One pass over the values of a feature; all zeros if it has none."""
    rows = np.flatnonzero(model.user_feature == feature)
    entries = np.zeros(model.user_latent.shape[1])
    lengths, alone = np.zeros(model.user_features - 1), 0.0
    pairs = len(lengths) * model.overlap
    for some in _slices(rows):
        squares = np.square(model.user_latent[some], dtype=np.float64)
        entries = np.maximum(entries, squares.max(axis=0))
        alone = float(np.maximum(alone, squares[:, pairs:].sum(axis=1).max()))
        blocks = squares[:, :pairs].reshape(len(some), len(lengths), model.overlap)
        lengths = np.maximum(lengths, np.einsum("nko,nko->nk", blocks, blocks).max(axis=0))
    return _Extent(rows, entries, np.sqrt(lengths), alone**0.5)


_Side = tuple[_Extent, int]
"""A feature's values, and the number of one of their blocks."""


def _largest_product(model: Model, left: _Side, right: _Side, exact_products: int) -> float:
    """max ⟨x, y⟩ over the squared blocks of both sides, or a little more: see `block_bounds`."""
    if not len(left[0].rows) or not len(right[0].rows):
        return 0.0
    bounds = _bounds(model, left, right), _bounds(model, right, left)
    if not all(np.isfinite(each).all() for each in bounds):
        return float("nan")
    first = [
        np.argpartition(-each, min(_FIRST_TRIED, len(each)) - 1)[:_FIRST_TRIED] for each in bounds
    ]
    best = _tried(model, left, right, *first)
    some, others = (np.flatnonzero(each > best) for each in bounds)
    affordable = exact_products // max(model.overlap * len(others), 1)
    if len(some) > affordable:
        some = some[np.argsort(-bounds[0][some])]
        # What is left untried cannot exceed the largest of its bounds.
        best = float(bounds[0][some[affordable]])
        some = some[:affordable]
    return max(best, _tried(model, left, right, some, others))


def _bounds(model: Model, side: _Side, other: _Side) -> Float64s:
    """What no product of each value with any value of the other side exceeds: float64 [values]."""
    most, length = _block(model, other[0].entries, other[1]), other[0].lengths[other[1]]
    found = [np.zeros(0)]
    for some in _slices(side[0].rows):
        squares = _squares(model, some, side[1])
        norms = np.sqrt(np.einsum("ij,ij->i", squares, squares))
        found.append(np.minimum(squares @ most, norms * length))
    return np.concatenate(found)


def _tried(model: Model, left: _Side, right: _Side, some: Int64s, others: Int64s) -> float:
    """The largest product of some values of the left side with some of the right."""
    best = 0.0
    for these in _slices(left[0].rows[some], _FIRST_TRIED):
        squares = _squares(model, these, left[1])
        for those in _slices(right[0].rows[others]):
            best = max(best, float((squares @ _squares(model, those, right[1]).T).max()))
    return best


def _squares(model: Model, rows: Int64s, block: int) -> Float64s:
    return np.square(_block(model, model.user_latent, block)[rows], dtype=np.float64)


def _block(model: Model, entries: _Entries, block: int) -> _Entries:
    return entries[..., block * model.overlap : (block + 1) * model.overlap]


def _slices(rows: Int64s, size: int = _ROWS_AT_ONCE) -> Iterator[Int64s]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _main_range(model: Model) -> tuple[float, float, float]:
    """Σ_k min w_k, Σ_k max w_k and Σ_k max |w_k|; a value not in the table counts as 0."""
    each = [model.user_main[model.user_feature == k] for k in range(model.user_features)]
    lows = [float(values.min(initial=0.0)) for values in each]
    highs = [float(values.max(initial=0.0)) for values in each]
    size = sum(max(-low, high) for low, high in zip(lows, highs, strict=True))
    return sum(lows), sum(highs), size
