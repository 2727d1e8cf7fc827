"""The flat index: exact under any mask, memory-mapped without a copy."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import SnapshotCorrupt
from models.index import AdIndex, packed


def made(rows: int, width: int = 6, seed: int = 0) -> AdIndex:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((rows, width)).astype(np.float32)
    return AdIndex.build(np.arange(rows) * 3 + 5, np.ones(rows, np.int64), vectors)


@given(rows=st.integers(0, 70), k=st.integers(0, 80), seed=st.integers(0, 99), keep=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_search_equals_brute_force_under_a_mask(rows: int, k: int, seed: int, keep: float) -> None:
    """The k best rows that the mask allows, best first, and never a padded one."""
    index = made(rows, seed=seed)
    random = np.random.default_rng(seed)
    mask = random.random(rows) < keep
    query = random.standard_normal(6).astype(np.float32)
    values, found = index.search(query, k, packed(mask))
    exact = np.sort((index.vectors @ query)[mask])[::-1][:k]
    np.testing.assert_allclose(values, exact, rtol=1e-5, atol=1e-5)
    assert mask[found].all()
    assert len(set(found.tolist())) == len(found)


@given(rows=st.integers(0, 70), seed=st.integers(0, 99), limit=st.floats(-5, 5))
@settings(max_examples=60, deadline=None)
def test_above_finds_every_row_over_the_limit(rows: int, seed: int, limit: float) -> None:
    """No row whose product is clearly above the limit is missed, none clearly below is found."""
    index = made(rows, seed=seed)
    query = np.random.default_rng(seed).standard_normal(6).astype(np.float32)
    mask = np.arange(rows) % 3 > 0
    products = index.vectors.astype(np.float64) @ query
    found = set(index.above(query, limit, packed(mask)).tolist())
    assert set(np.nonzero(mask & (products > limit + 1e-4))[0].tolist()) <= found
    assert found <= set(np.nonzero(mask & (products > limit - 1e-4))[0].tolist())


def test_bit_r_of_the_bitmap_allows_row_r() -> None:
    """The bitmap's bit order is that of FAISS: little-endian in each byte."""
    index, mask = made(20), np.zeros(20, np.bool_)
    mask[[1, 8, 19]] = True
    _, found = index.search(np.ones(6, np.float32), 20, packed(mask))
    assert sorted(found.tolist()) == [1, 8, 19]


def test_a_loaded_index_is_the_mapped_file(tmp_path: Path) -> None:
    """After `load` the vectors lie inside the mapping of the file, uncopied and read-only."""
    made(5000).save(tmp_path)
    index = AdIndex.load(tmp_path)
    address = index.vectors.__array_interface__["data"][0]
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if str(tmp_path) in line]
    assert any(int(low, 16) <= address < int(high, 16) for low, high in spans)
    assert not index.vectors.flags.writeable


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    """The loaded index holds the same ids, versions and vectors, and finds the same."""
    index, query = made(300), np.ones(6, np.float32)
    index.save(tmp_path)
    loaded = AdIndex.load(tmp_path)
    np.testing.assert_array_equal(loaded.ad_ids, index.ad_ids)
    np.testing.assert_array_equal(loaded.features_version, index.features_version)
    np.testing.assert_array_equal(loaded.vectors, index.vectors)
    np.testing.assert_array_equal(loaded.search(query, 9)[1], index.search(query, 9)[1])


def test_an_index_of_no_ads_survives_save_and_load(tmp_path: Path) -> None:
    """A catalog without ads is an index like any other."""
    made(0).save(tmp_path)
    loaded = AdIndex.load(tmp_path)
    assert len(loaded) == 0
    assert loaded.search(np.ones(6, np.float32), 4)[1].shape == (0,)


def test_take_copies_the_rows_in_order(tmp_path: Path) -> None:
    """`take` returns aligned rows in the order asked for, repeats included."""
    made(50).save(tmp_path)
    index = AdIndex.load(tmp_path)
    taken = index.take(np.array([7, 3, 7]))
    assert taken.flags.aligned
    np.testing.assert_array_equal(taken, index.vectors[[7, 3, 7]])


def test_vectors_outlive_the_index() -> None:
    """A view of the vectors keeps FAISS's memory alive."""
    index = made(1000)
    vectors, copy = index.vectors, index.vectors.copy()
    del index
    gc.collect()
    made(1000, seed=1)
    np.testing.assert_array_equal(vectors, copy)


@pytest.mark.parametrize(
    "name",
    ["index.flat.faiss", "index.ad_ids.npy", "index.log_bid.npy", "index.reach.npy"],
)
def test_a_missing_or_truncated_file_is_named_corrupt(tmp_path: Path, name: str) -> None:
    """A truncated file raises `SnapshotCorrupt`, and so does a missing one."""
    made(300).save(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:30])
    with pytest.raises(SnapshotCorrupt):
        AdIndex.load(tmp_path)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SnapshotCorrupt):
        AdIndex.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SnapshotCorrupt):
        AdIndex.load(tmp_path)


def test_unsorted_ids_are_refused() -> None:
    """Rows are looked up by binary search, so their ids must ascend."""
    with pytest.raises(ValueError, match="ascending"):
        AdIndex.build(np.array([2, 1]), np.zeros(2, np.int64), np.zeros((2, 3), np.float32))
