"""Norms of what has served, measured on the snapshots' own files and not taken from their word."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from models import snapshot
from models.errors import SnapshotCorrupt
from models.features import load_schema
from models.schema import Schema
from models.trainer import TrainerSettings
from models.types import Float32s


def served_norm_ratio(store: Path, features: Path, served: Iterable[str]) -> float:
    """The largest norm over its radius in the published vectors of these snapshots; 0 for none.

    Infinite when the files of one are missing or damaged.
    """
    schema = load_schema(features)
    return max((_norm_ratio(store / one, schema) for one in served), default=0.0)


def _norm_ratio(folder: Path, schema: Schema) -> float:
    radii = TrainerSettings.of(schema).radii
    try:
        model = snapshot.load_served(folder).model
    except SnapshotCorrupt:
        return float("inf")
    sides = ((model.user_latent, radii.user), (model.ad_latent, radii.ad))
    return max(_largest_norm(vectors) / radius for vectors, radius in sides)


def _largest_norm(vectors: Float32s) -> float:
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return float(norms.max(initial=0.0))
