"""How much interactions count: the prior variances of ad latents, and the weight they serve with.

**Variances.** Which interactions exist is a property of the market: a visitor's interests may meet
an ad's category, hardly its number. So the entries of ad latents are grouped by (ad feature, user
feature whose block for itself they multiply), with one more group for all blocks of pairs, and each
group's variance is learned as that of main effects is (see `priors`): after each chunk

    τ² ← (Σ v² + a τ₀²) / (Σ γ + a),    γ = 1 − (1/τ²)/π,

D. MacKay's evidence framework (Neural Computation 4(3), 1992). τ₀² is so small that interactions
without evidence stay nearly silent.

**Weight.** Served scores are `b + Σ w + κ ν_u·ν_a`, κ between 0 and 1. κ is the Bayesian logistic
regression of the clicks on each event's own interaction, as predicted before the event was learned,
from the prior N(0, 1): stacking (D. Wolpert, Neural Networks 5(2), 1992) on progressive
predictions. So interactions serve only as far as they have predicted clicks that main effects did
not, and a log without any is served by main effects alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.kernels import Shape
from models.types import Float32s, Float64s, in_slices

if TYPE_CHECKING:
    from models.offset import Table

INITIAL_SCALE = 0.2
"""Standard deviation of a user value's first latents."""

FIRST_EFFECT = 0.0005
"""First guess of the variance of s that one ad feature's interactions with one user feature make.

Measured on the KuaiRand log and on seeded markets: 0.003 costs the log 0.0004 log loss and gains
the markets 0.00004; 0.0003 loses the markets 0.00003 and gains the log 0.00002.
"""

FIRST_PAIR_EFFECT = 0.0001
"""The same of one ad feature with all pairs of user features together."""

FIRST_WEIGHT = 1.0
"""The first guess counts as much as one well-determined entry."""

LEAST_SHARE = 0.1
"""No evidence makes a group's variance less than this part of the first guess, ..."""

LARGEST_EFFECT = 1.0
"""... nor lets it make more than this variance of s."""

LEAST_CHANGE = 0.02
"""Least change of the logarithm of a variance that is carried through the table."""

MOST_CERTAIN = 1000.0
"""Largest precision of κ (a standard deviation of 0.03): beyond it older evidence is forgotten."""

LARGEST_SCORE = 20.0
"""Interactions beyond this are a fault of the parameters: they weigh as this in the weight."""

_NEWTON_STEPS = 8


@dataclass(frozen=True, slots=True)
class Interactions:
    """`variance`: float64 [A, 1 + K], τ² of each group of ad latents, the pairs' first.

    `weight` and `precision`: mean and precision of κ.
    """

    variance: Float64s
    weight: float = 0.0
    precision: float = 1.0

    @property
    def served(self) -> float:
        """κ as it is served: never against the interactions, never more than all of them."""
        return min(max(self.weight, 0.0), 1.0)


def first(shape: Shape) -> Interactions:
    """Before any evidence."""
    return Interactions(np.tile(_first_variances(shape), (shape.ad_features, 1)))


def groups(shape: Shape) -> list[slice]:
    """The columns of ad latents of each group: all pairs, then each user feature's own block."""
    pairs = shape.user_features * (shape.user_features - 1) // 2 * shape.overlap
    starts = [pairs + k * shape.alone for k in range(shape.user_features)]
    return [slice(0, pairs), *(slice(start, start + shape.alone) for start in starts)]


def learned(table: Table, interactions: Interactions, shape: Shape, radius: float) -> Interactions:
    """The variances learned from an ad table, whose latents are moved in place.

    What the data said of an entry, π·v, stays as it was, but that no vector leaves its radius by
    that, nor goes further out.
    """
    before = interactions.variance
    found = _evidence(table, before, shape)
    # Every change is a pass over the table: small ones wait until they have added up.
    variance = np.where(np.abs(np.log(found / before)) > LEAST_CHANGE, found, before)
    if (variance != before).any():
        priors = by_entry(1.0 / before, shape), by_entry(1.0 / variance, shape)
        for rows in in_slices(len(table)):
            _reweigh(table, rows, priors, radius)
    return replace(interactions, variance=variance)


def _reweigh(table: Table, rows: slice, priors: tuple[Float32s, Float32s], radius: float) -> None:
    """Move some rows' latents from the first prior precisions [A, D] to the second, in place."""
    latent, evidence, feature = table.latent[rows], table.latent_evidence[rows], table.feature[rows]
    most = np.maximum(_norms(latent), radius)
    before, after = (prior[feature] + evidence for prior in priors)
    latent *= before / after
    over = np.flatnonzero(_norms(latent) > most)
    latent[over] *= (most[over] / _norms(latent[over]))[:, None]


def weighed(interactions: Interactions, scores: Float32s, label: Float32s) -> Interactions:
    """κ after a chunk: `scores` float32 [n, 2], each event's score without its interactions and
    its interactions, both before it was learned; `label` [n].

    Newton's method on the log posterior. Scores that are not finite say nothing: the gate refuses
    what made them.
    """
    main, inner, y = (column.astype(np.float64) for column in (*scores.T, label))
    if not (np.isfinite(main).all() and np.isfinite(inner).all()):
        return interactions
    inner = np.clip(inner, -LARGEST_SCORE, LARGEST_SCORE)
    weight = interactions.weight
    for _ in range(_NEWTON_STEPS):
        p = 0.5 + 0.5 * np.tanh((main + weight * inner) / 2)
        precision = float((inner * inner * p * (1 - p)).sum()) + interactions.precision
        slope = float((inner * (p - y)).sum())
        slope += interactions.precision * (weight - interactions.weight)
        step = min(max(slope / precision, -0.5), 0.5)
        weight -= step
        if abs(step) < 1e-4:
            break
    return replace(interactions, weight=weight, precision=min(precision, MOST_CERTAIN))


def _first_variances(shape: Shape) -> Float64s:
    effects = np.array([FIRST_PAIR_EFFECT] + [FIRST_EFFECT] * shape.user_features)
    return np.asarray(effects / _slopes(shape))


def _slopes(shape: Shape) -> Float64s:
    """Expected Σ (∂s/∂v)² over each group for a user whose values were all just born: [1 + K]."""
    pairs = shape.user_features * (shape.user_features - 1) // 2 * shape.overlap
    alone = [max(shape.alone, 1) * INITIAL_SCALE**2] * shape.user_features
    return np.array([max(pairs, 1) * INITIAL_SCALE**4, *alone])


def _evidence(table: Table, variance: Float64s, shape: Shape) -> Float64s:
    """τ² of each group as its fixed point has it; where the table is not finite, as it was."""
    squares, known = (np.zeros((shape.ad_features, shape.dimensions)) for _ in range(2))
    prior = by_entry(1.0 / variance, shape)
    for rows in in_slices(len(table)):
        feature, latent, evidence = (
            array[rows] for array in (table.feature, table.latent, table.latent_evidence)
        )
        members = (feature == np.arange(shape.ad_features)[:, None]).astype(np.float32)
        squares += members @ (latent * latent)
        known += members @ (evidence / (prior[feature] + evidence))
    squares, known = (_by_group(sums, shape) for sums in (squares, known))
    first_guess, most = _first_variances(shape), LARGEST_EFFECT / _slopes(shape)
    found = (squares + FIRST_WEIGHT * first_guess) / (known + FIRST_WEIGHT)
    found = np.clip(found, LEAST_SHARE * first_guess, most)
    return np.where(np.isfinite(found), found, variance)


def by_entry(of_groups: Float64s, shape: Shape) -> Float32s:
    """Each group's value at each of its columns: float64 [A, 1 + K] to float32 [A, D]."""
    found = np.empty((shape.ad_features, shape.dimensions), np.float32)
    for group, columns in enumerate(groups(shape)):
        found[:, columns] = of_groups[:, group, None]
    return found


def _by_group(of_entries: Float64s, shape: Shape) -> Float64s:
    """The sums over each group's columns: [A, D] to [A, 1 + K]."""
    return np.stack([of_entries[:, columns].sum(axis=1) for columns in groups(shape)], axis=1)


def _norms(latent: Float32s) -> Float32s:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", latent, latent)))
