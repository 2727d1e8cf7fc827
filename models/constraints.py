"""Norm constraints on latent vectors: radii, the dual update and the exact projection.

Each latent vector v has a radius r and the constraint `½(‖v‖² − r²) ≤ 0`. The idea of dual ascent
for this purpose is that of A. Shtoff and Y. Koren (arXiv 2111.07866); the body of that paper was
not at hand, so the form here is our own derivation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.offset import Model, State, Table
from models.types import Bytes, Float32s, Float64s, Int64s

if TYPE_CHECKING:
    from models.features import Schema


@dataclass(frozen=True, slots=True)
class Radii:
    """The radius of every user vector and of every ad vector."""

    user: float
    ad: float


@dataclass(frozen=True, slots=True)
class Projection:
    """What projecting did: how many vectors moved, and the largest raw norm over its radius."""

    count: int
    largest_ratio: float


def norm_ratios(table: Table, radius: float) -> Float64s:
    """Each vector's norm over its radius: float64 [n]; above 1 is a violation."""
    return table.norms() / radius


def ascend(
    table: Table, touched: Int64s, radius: float, *, rate: float, largest: float
) -> Float32s:
    """The duals after a chunk: `μ ← clip(μ + rate·(‖v‖²/r² − 1), 0, largest)` where touched.

    `touched`: int64, row numbers. Returns a new float32 [n]. A non-finite norm leaves its μ as it
    was: the gate refuses such a state, and the retry needs a usable μ.
    """
    dual = table.dual.copy()
    vectors = table.latent[touched]
    square = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    violation = square / radius**2 - 1.0
    moved = np.clip(dual[touched] + rate * violation, 0.0, largest)
    dual[touched] = np.where(np.isfinite(moved), moved, dual[touched])
    return dual


def project(state: State, radii: Radii, schema: Schema) -> tuple[Model, Projection]:
    """The published copy of `state`: `v·min(1, r/‖v‖)` for every vector, keys ascending.

    Every float32 norm in the result is at most its radius. Ad vectors are scaled by κ, the weight
    that interactions have earned (see `interactions`). The raw state is not changed.
    """
    user_ratio, ad_ratio = norm_ratios(state.user, radii.user), norm_ratios(state.ad, radii.ad)
    user, (ad_keys, ad_latent, ad_main, _) = (
        _published(state.user, user_ratio),
        _published(state.ad, ad_ratio),
    )
    shape = (len(schema.user), schema.model.overlap, schema.model.alone)
    ad_latent *= np.float32(state.interactions.served)
    variances = _main_variances(state)
    model = Model(*user, ad_keys, ad_latent, ad_main, state.bias, *shape, *variances)
    ratios = np.concatenate((user_ratio, ad_ratio, [0.0]))
    return model, Projection(int((ratios > 1.0).sum()), float(ratios.max()))


def _main_variances(state: State) -> tuple[Float32s, Float64s]:
    """1/π of the main effect of each ad value, keys ascending, and the prior's of each feature."""
    table, prior = state.ad, state.ad_variance
    variance = 1.0 / (1.0 / prior[table.feature] + table.main_evidence)
    return variance[np.argsort(table.keys, kind="stable")].astype(np.float32), prior


def _published(table: Table, ratio: Float64s) -> tuple[Int64s, Float32s, Float32s, Bytes]:
    order = np.argsort(table.keys, kind="stable")
    latent = table.latent[order]
    over = np.flatnonzero(ratio[order] > 1.0)
    # Rounding down by one part in a million keeps the float32 norm at or below the radius.
    shrink = (1.0 - 1e-6) / ratio[order][over]
    latent[over] = (latent[over] * shrink[:, None]).astype(np.float32)
    return table.keys[order], latent, table.main[order], table.feature[order]
