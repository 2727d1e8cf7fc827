"""What a feature value is before its evidence: its first row, and its main effect's variance.

The prior variance of main effects matters more than any other setting, and differs between
features (a user id spreads far more than an hour of the day) and between labels. So it is learned:
after each chunk each feature's variance τ² becomes

    τ² ← (Σ w² + a τ₀²) / (Σ γ + a),    γ = 1 − (1/τ²)/π,

over its values, the fixed point of D. MacKay's evidence framework (Neural Computation 4(3), 1992)
with a pseudo-count a for the first guess τ₀²: γ is the part of a parameter that data rather than
prior decides. A precision π, evidence and prior together, then changes by the change of 1/τ², and w
by π_before / π_after, since what the data said, π·w, stays as it was.

Evidence is kept apart from the prior: added to a float32 precision of ten thousand, that of a
single event at a click rate below one in a hundred would be lost in rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.offset import FIRST_VARIANCE, Table
from models.types import Float64s, Int64s, in_slices

FIRST_WEIGHT = 1.0
"""a: the first guess counts as much as one well-determined value."""

VARIANCE_RANGE = (0.003, 4.0)
"""No evidence makes values alike to 5 % of a logit, nor spreads them by more than two logits."""

Births = Callable[[Int64s, Int64s], Table]
"""Makes the first rows of values: from keys int64 [n] and their features int64 [n]."""


def in_force(variance: Float64s, given: Sequence[float | None]) -> Float64s:
    """Each feature's variance: `given` where it is fixed, else as learned: float64 [features]."""
    return np.array(
        [found if fixed is None else fixed for fixed, found in zip(given, variance, strict=True)]
    )


def learned(
    table: Table, before: Float64s, given: Sequence[float | None]
) -> tuple[Table, Float64s]:
    """The table under variances learned from it, and those: float64 [features].

    `before`: the variances that its values were learned under; `given`: see `in_force`.
    """
    squares, count = _evidence(table, before)
    found = (squares + FIRST_WEIGHT * FIRST_VARIANCE) / (count + FIRST_WEIGHT)
    after = in_force(np.clip(found, *VARIANCE_RANGE), given)
    main = np.empty_like(table.main)
    for rows in in_slices(len(table)):
        feature, evidence = table.feature[rows], table.main_evidence[rows]
        share = ((1.0 / before)[feature] + evidence) / ((1.0 / after)[feature] + evidence)
        main[rows] = table.main[rows] * share
    return replace(table, main=main), after


def _evidence(table: Table, variance: Float64s) -> tuple[Float64s, Float64s]:
    """Σ w² and Σ γ over each feature's values, a slice of the table at a time."""
    squares, count = np.zeros_like(variance), np.zeros_like(variance)
    for rows in in_slices(len(table)):
        feature, evidence = table.feature[rows], table.main_evidence[rows]
        known = evidence / ((1.0 / variance)[feature] + evidence)
        square = table.main[rows].astype(np.float64) ** 2
        squares += np.bincount(feature, square, minlength=len(variance))
        count += np.bincount(feature, known, minlength=len(variance))
    return squares, count


def first_rows(keys: Int64s, features: Int64s, latent: Float64s) -> Table:
    """Rows of values never seen: `latent` [n, width], main effects and evidence zero."""
    none = np.zeros(len(keys), np.float32)
    return Table(
        keys=keys,
        latent=latent.astype(np.float32),
        main=none,
        latent_evidence=np.zeros(latent.shape, np.float32),
        main_evidence=none.copy(),
        dual=none.copy(),
        touched_ms=np.zeros(len(keys), np.int64),
        feature=features.astype(np.uint8),
    )


def normals(keys: Int64s, width: int, seed: int) -> Float64s:
    """Standard normal draws that depend on (key, seed, position) alone: float64 [n, width].

    splitmix64 (G. Steele et al., OOPSLA 2014) of each of the three in turn, then Box–Muller.
    """
    found = np.empty((len(keys), width))
    for some in in_slices(len(keys)):
        found[some] = _normals(keys[some], width, seed)
    return found


def _normals(keys: Int64s, width: int, seed: int) -> Float64s:
    start = _splitmix64(keys.view(np.uint64) ^ _splitmix64(np.uint64(seed % 2**64)))
    with np.errstate(over="ignore"):
        positions = np.arange(2 * width, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
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
