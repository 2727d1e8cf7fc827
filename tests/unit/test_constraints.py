"""Duals rise with violations, and what is published satisfies every constraint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.constraints import Radii, ascend, norm_ratios, project
from models.features import parse_schema
from models.offset import Table, genesis
from models.priors import first_rows
from tests.unit.conftest import SCHEMA


def table(rows: int, width: int, scale: float, seed: int = 0) -> Table:
    """Rows with random latents of the given spread."""
    generator = np.random.default_rng(seed)
    keys = generator.permutation(rows).astype(np.int64)
    return first_rows(
        keys,
        keys % 2,
        generator.normal(0, scale, (rows, width)),
    )


@given(seed=st.integers(0, 1000), radius=st.floats(1e-3, 1e3), scale=st.floats(1e-4, 1e4))
def test_published_vectors_are_inside_their_radii(seed: int, radius: float, scale: float) -> None:
    """Whatever the raw state, no published norm exceeds its radius, and short ones stay."""
    schema = parse_schema(SCHEMA)
    width = schema.user_width
    raw = replace(genesis(schema, 0.1, 1), user=table(9, width, scale, seed))
    model, projection = project(raw, Radii(radius, radius), schema)
    norms = np.linalg.norm(model.user_latent.astype(np.float64), axis=1)
    assert (norms <= radius).all()
    ratios = norm_ratios(raw.user, radius)
    assert projection.count == (ratios > 1).sum()
    inside = np.argsort(raw.user.keys)[ratios[np.argsort(raw.user.keys)] <= 1]
    rows = np.searchsorted(model.user_keys, raw.user.keys[inside])
    np.testing.assert_array_equal(model.user_latent[rows], raw.user.latent[inside])


def test_published_keys_ascend() -> None:
    """Rows are sorted by key, and each keeps its own parameters."""
    parsed = parse_schema(SCHEMA)
    raw = replace(genesis(parsed, 0.5, 1), user=table(20, 7, 1.0))
    model, _ = project(raw, Radii(1e9, 1e9), parsed)
    assert (np.diff(model.user_keys) > 0).all()
    np.testing.assert_array_equal(model.user_latent, raw.user.latent[np.argsort(raw.user.keys)])


def test_duals_follow_their_rule() -> None:
    """μ moves by rate · (‖v‖²/r² − 1), stays in its bounds, and only where touched."""
    rows = replace(
        table(4, 2, 1.0),
        latent=np.array([[2, 0], [2, 0], [0.1, 0], [9, 0]], np.float32),
        dual=np.array([0.5, 0.5, 0.001, 0.5], np.float32),
    )
    dual = ascend(rows, np.array([0, 2, 3]), 1.0, rate=0.1, largest=2.0)
    np.testing.assert_allclose(dual, [0.8, 0.5, 0.0, 2.0], atol=1e-6)


def test_a_diverged_vector_keeps_its_dual() -> None:
    """A non-finite norm says nothing about μ: a retry must find it usable."""
    rows = replace(table(1, 2, 1.0), latent=np.full((1, 2), np.nan, np.float32))
    assert ascend(rows, np.array([0]), 1.0, rate=0.1, largest=2.0) == pytest.approx([0.0])
