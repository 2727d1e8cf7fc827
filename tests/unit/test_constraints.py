"""Duals rise with violations, and what is published satisfies every constraint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.constraints import Radii, ascend, norm_ratios, project
from models.features import parse_schema
from models.offset import State, Table, genesis
from models.priors import first_rows
from models.schema import Schema
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


def in_full(schema: Schema, user: Table, scale: float, seed: int) -> State:
    """A state of these user values and as many ad values whose interactions serve in full."""
    begun = genesis(schema, 0.1, 1)
    interactions = replace(begun.interactions, weight=1.0)
    ad = table(len(user), schema.dimensions, scale, seed)
    return replace(begun, user=user, ad=ad, interactions=interactions)


@given(seed=st.integers(0, 1000), radius=st.floats(1e-3, 1e3), scale=st.floats(1e-4, 1e4))
def test_published_vectors_are_inside_their_radii(seed: int, radius: float, scale: float) -> None:
    """Whatever the raw state, no published norm exceeds its radius, and short ones stay."""
    schema = parse_schema(SCHEMA)
    raw = in_full(schema, table(9, schema.user_width, scale, seed), scale, seed + 1)
    radii = Radii(radius, radius / 3)
    model, projection = project(raw, radii, schema)
    sides = (
        (raw.user, radii.user, model.user_keys, model.user_latent),
        (raw.ad, radii.ad, model.ad_keys, model.ad_latent),
    )
    ratios = [norm_ratios(held, limit) for held, limit, *_ in sides]
    for (held, limit, keys, latent), ratio in zip(sides, ratios, strict=True):
        assert (np.linalg.norm(latent.astype(np.float64), axis=1) <= limit).all()
        inside = np.flatnonzero(ratio <= 1)
        rows = np.searchsorted(keys, held.keys[inside])
        np.testing.assert_array_equal(latent[rows], held.latent[inside])
        over = np.flatnonzero(ratio > 1)
        shorter = held.latent[over] / ratio[over][:, None]
        rows = np.searchsorted(keys, held.keys[over])
        np.testing.assert_allclose(latent[rows], shorter, rtol=1e-5, atol=0)
    assert projection.count == sum((ratio > 1).sum() for ratio in ratios)
    assert projection.largest_ratio == max(ratio.max() for ratio in ratios)


def test_published_keys_ascend() -> None:
    """Rows are sorted by key, and each keeps its own parameters."""
    parsed = parse_schema(SCHEMA)
    raw = in_full(parsed, table(20, 7, 1.0), 1.0, seed=1)
    model, _ = project(raw, Radii(1e9, 1e9), parsed)
    assert (np.diff(model.user_keys) > 0).all()
    assert (np.diff(model.ad_keys) > 0).all()
    np.testing.assert_array_equal(model.user_latent, raw.user.latent[np.argsort(raw.user.keys)])
    np.testing.assert_array_equal(model.ad_latent, raw.ad.latent[np.argsort(raw.ad.keys)])


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
