"""Bounds on an index's inner products: never below a product, falling, and tight where they can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bounds import BLOCK, Bounds
from models.errors import SnapshotCorrupt
from models.types import Float32s


def rows_of(count: int, width: int, rank: int, scale: float, seed: int) -> Float32s:
    """Rows [ν, w, log bid] whose ν lie near a space of `rank` dimensions, far from the origin."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((count, rank)) @ random.standard_normal((rank, width))
    latent += 0.01 * random.standard_normal((count, width)) + random.standard_normal(width)
    sides = (random.standard_normal(count), random.normal(12, 1.2, count))
    return np.column_stack((scale * latent, *sides)).astype(np.float32)


@given(
    count=st.sampled_from([0, 1, 2, 255, 256, 257, 700]),
    width=st.sampled_from([1, 5, 40]),
    rank=st.integers(1, 3),
    scale=st.sampled_from([0.0, 1e-6, 0.3, 30.0]),
    typical=st.sampled_from([0.01, 1.0, 9.0]),
    length=st.sampled_from([0.0, 1e-9, 0.7, 1.0, 5.0, 300.0]),
    slope=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=250, deadline=None)
def test_no_product_is_above_its_bounds(
    count: int,
    width: int,
    rank: int,
    scale: float,
    typical: float,
    length: float,
    slope: float,
    seed: int,
) -> None:
    """For any rows and any query both bounds hold, and no later place reaches a limit."""
    rows = rows_of(count, width, rank, scale, seed)
    bounds = Bounds.build(rows, typical)
    random = np.random.default_rng(seed + 1)
    query = random.standard_normal(width)
    query *= length / np.linalg.norm(query)
    asked = bounds.asked(query, slope)
    whole = np.append(query, (slope, 1.0))
    products = rows[bounds.order].astype(np.float64) @ whole
    assert sorted(bounds.order.tolist()) == list(range(count))
    assert (products <= asked.at(0, count).astype(np.float64) + asked.shift).all()
    assert (products <= np.repeat(asked.lengthwise, BLOCK)[:count] + asked.shift).all()
    assert (np.diff(asked.lengthwise) <= 1e-9).all()
    for limit in (products.min(initial=0.0), float(np.median([*products, 0.0])), 1e9):
        assert (products[asked.places_above(limit) :] < limit).all()


def test_some_places_have_the_bounds_that_a_range_has() -> None:
    """`at_some` and `at` agree."""
    bounds = Bounds.build(rows_of(600, 30, 2, 1.0, 1), 1.0)
    asked = bounds.asked(np.ones(30), 0.9)
    places = np.array([3, 599, 0, 77])
    np.testing.assert_allclose(asked.at_some(places), asked.at(0, 600)[places], rtol=1e-5)


def test_rows_of_few_dimensions_are_bounded_tightly() -> None:
    """Where the rows lie in few dimensions the bound is the product, but for the rounding."""
    rows = rows_of(500, 60, 3, 1.0, 2)
    query = np.random.default_rng(4).standard_normal(60) / 8
    asked = Bounds.build(rows, 1.0).asked(query, 1.0)
    products = rows.astype(np.float64) @ np.append(query, (1.0, 1.0))
    excess = asked.at(0, 500) + asked.shift - products[asked.bounds.order]
    assert excess.max() < 0.2 < products.std()


def test_a_typical_user_stops_early() -> None:
    """Rows lie in falling order, so a high limit leaves a small part of the places."""
    rows = rows_of(20_000, 20, 3, 0.1, 5)
    query = np.random.default_rng(6).standard_normal(20)
    query /= np.linalg.norm(query)
    asked = Bounds.build(rows, 1.0).asked(query, 1.0)
    tenth = np.sort(rows.astype(np.float64) @ np.append(query, (1.0, 1.0)))[-10]
    assert asked.places_above(float(tenth)) < 2_000
    assert asked.places_above(-np.inf) == 20_000


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """Every array survives, mapped from its file."""
    bounds = Bounds.build(rows_of(300, 9, 2, 1.0, 1), 1.0)
    bounds.save(tmp_path)
    loaded = Bounds.load(tmp_path)
    for name in Bounds.__slots__:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bounds, name))
        assert not getattr(loaded, name).flags.writeable


@pytest.mark.parametrize("name", Bounds.__slots__)
def test_a_damaged_file_is_named_corrupt(tmp_path: Path, name: str) -> None:
    """Missing, truncated, or of another index: `SnapshotCorrupt`."""
    Bounds.build(rows_of(300, 9, 2, 1.0, 1), 1.0).save(tmp_path)
    file = tmp_path / f"index.bounds.{name}.npy"
    whole = file.read_bytes()
    for damaged in (whole[:70], b""):
        file.write_bytes(damaged)
        with pytest.raises(SnapshotCorrupt):
            Bounds.load(tmp_path)
    np.save(file, np.zeros((2, 3, 5, 7)))
    with pytest.raises(SnapshotCorrupt):
        Bounds.load(tmp_path)
    file.unlink()
    with pytest.raises(SnapshotCorrupt):
        Bounds.load(tmp_path)
