"""What a feature value is before its evidence: its first row, and its main effect's variance.

The prior variance of main effects matters more than any other setting, and differs between
features (a user id spreads far more than an hour of the day) and between labels. So it is learned:
after each chunk each feature's variance τ² becomes

    τ² ← (Σ w² + a τ₀²) / (Σ γ + a),    γ = 1 − (1/τ²)/π,

over its values, the fixed point of D. MacKay's evidence framework (Neural Computation 4(3), 1992)
with a pseudo-count a for the first guess τ₀²: γ is the part of a parameter that data rather than
prior decides. A precision then changes by the change of 1/τ², and w by π_before / π_after, since
what the data said, π·w, stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.offset import ROWS_AT_ONCE, Table
from models.types import Float32s, Float64s, Int64s

FIRST_VARIANCE = 0.1
"""τ₀² of a feature whose variance is learned: a standard deviation of a third of a logit."""

FIRST_WEIGHT = 1.0
"""a: the first guess counts as much as one well-determined value."""

VARIANCE_RANGE = (0.003, 4.0)
"""No evidence makes values alike to 5 % of a logit, nor spreads them by more than two logits."""

Births = Callable[[Int64s, Int64s], Table]
"""Makes the first rows of values: from keys int64 [n] and their features int64 [n]."""


def first_variances(given: Sequence[float | None]) -> Float64s:
    """Each feature's variance without evidence: as given, or the first guess: [features]."""
    return np.array([FIRST_VARIANCE if value is None else value for value in given])


def in_force(table: Table, given: Sequence[float | None]) -> Float64s:
    """The variance that new rows get: that of their feature's other rows, or the first.

    `given`: each feature's variance where it is fixed, None where it is learned.
    """
    found = first_variances(given)
    # The sums of gradients of the other steps have no prior: their rows say nothing.
    told = table.main_prior > 0
    found[table.feature[told]] = 1.0 / table.main_prior[told]
    return found


def learned(table: Table, given: Sequence[float | None]) -> Table:
    """The table under variances learned from it; those that are given stay as they are."""
    prior = (1.0 / _evidence(table, given)).astype(np.float32)[table.feature]
    precision = table.main_precision + (prior - table.main_prior)
    main = (table.main * (table.main_precision / precision)).astype(np.float32)
    return replace(table, main=main, main_precision=precision, main_prior=prior)


def _evidence(table: Table, given: Sequence[float | None]) -> Float64s:
    known = 1.0 - table.main_prior.astype(np.float64) / table.main_precision
    square = table.main.astype(np.float64) ** 2
    squares, count = (
        np.bincount(table.feature, each, minlength=len(given)) for each in (square, known)
    )
    found = (squares + FIRST_WEIGHT * FIRST_VARIANCE) / (count + FIRST_WEIGHT)
    fixed = np.array([value is not None for value in given], np.bool_)
    return np.where(fixed, first_variances(given), np.clip(found, *VARIANCE_RANGE))


def first_rows(
    keys: Int64s,
    features: Int64s,
    latent: Float64s,
    *,
    main_variance: Float64s,
    latent_variance: Float32s | float,
    accumulates_precision: bool,
) -> Table:
    """Rows of values never seen: `latent` [n, width], main effects zero.

    `latent_variance`: the prior's, of each entry [n, width] or of all.

    The accumulators of curvature and linear steps are precisions, which start at the prior's; the
    sums of gradients of the other steps start at zero.
    """
    n, scale = len(keys), float(accumulates_precision)
    prior = (scale / main_variance[features]).astype(np.float32)
    return Table(
        keys=keys,
        latent=latent.astype(np.float32),
        main=np.zeros(n, np.float32),
        latent_precision=_filled(scale / latent_variance, latent.shape),
        main_precision=prior,
        dual=np.zeros(n, np.float32),
        touched_ms=np.zeros(n, np.int64),
        feature=features.astype(np.uint8),
        main_prior=prior.copy(),
    )


def _filled(values: Float32s | float, shape: tuple[int, ...]) -> Float32s:
    return np.broadcast_to(np.asarray(values, np.float32), shape).copy()


def normals(keys: Int64s, width: int, seed: int) -> Float64s:
    """Standard normal draws that depend on (key, seed, position) alone: float64 [n, width].

    splitmix64 (G. Steele et al., OOPSLA 2014) of each of the three in turn, then Box–Muller.
    """
    found = np.empty((len(keys), width))
    for start in range(0, len(keys), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
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
