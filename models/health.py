"""How the trainer's vectors stand to their norm bounds, by feature type: for people to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from models.constraints import Radii, norm_ratios
from models.offset import State, Table
from models.schema import Feature, Schema
from models.snapshot import VectorHealth
from models.types import Float64s

_SHARES = (0.5, 0.9, 0.99)


def vector_health(state: State, schema: Schema, radii: Radii) -> tuple[VectorHealth, ...]:
    """One entry for each feature type that has values, the user's first.

    Norms are those of the raw vectors, before projection: what the constraints have to hold.
    """
    return (
        *_side(state.user, schema.user, radii.user),
        *_side(state.ad, schema.ad, radii.ad),
    )


def _side(table: Table, features: Sequence[Feature], radius: float) -> list[VectorHealth]:
    with np.errstate(over="ignore", invalid="ignore"):
        ratios = norm_ratios(table, radius)
    found = []
    for number, feature in enumerate(features):
        rows = np.flatnonzero(table.feature == number)
        if len(rows):
            mine, duals = ratios[rows], table.dual[rows]
            found.append(
                VectorHealth(
                    feature=feature.full_name,
                    values=len(rows),
                    ratios=tuple(_quantiles(mine)),
                    above=int((mine > 1.0).sum()),
                    duals=int((duals > 0).sum()),
                    largest_dual=_finite_or_none(float(duals.max())),
                )
            )
    return found


def _quantiles(ratios: Float64s) -> list[float | None]:
    """Median, 90 %, 99 % and the largest; None for what is no number. Reorders them."""
    # Quantiles of values that are there, not between them: infinities have no middle.
    found = np.quantile(ratios, _SHARES, method="higher", overwrite_input=True)
    return [_finite_or_none(float(one)) for one in (*found, ratios.max())]


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
