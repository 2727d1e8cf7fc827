"""Sets of rows as packed bitmaps, against the same sets as lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.serving.bitmaps import among, rows_at, rows_of, size_of, unpacked, without
from models.index import packed

SETS = st.integers(1, 70).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n))


@given(SETS)
def test_rows_and_size_are_those_that_were_packed(held: list[bool]) -> None:
    """A bitmap gives back the rows it was made of, and how many they are."""
    mask = packed(np.array(held))
    assert rows_of(mask).tolist() == [row for row, is_in in enumerate(held) if is_in]
    assert size_of(mask) == sum(held)
    assert unpacked(mask)[: len(held)].tolist() == held
    assert among(mask, np.arange(len(held))).tolist() == held


@pytest.mark.parametrize("share", [0.00005, 0.01, 0.5, 1.0])
def test_large_bitmaps_give_the_same_rows(share: float) -> None:
    """Above the length that is unpacked at once rows and places are found all the same."""
    held = np.random.default_rng(1).random(50_001) < share
    held[50_000] = True
    rows = np.flatnonzero(held)
    mask = packed(held)
    assert rows_of(mask).tolist() == rows.tolist()
    assert rows_at(mask, np.arange(len(rows))).tolist() == rows.tolist()
    assert among(mask, np.arange(len(held))).tolist() == held.tolist()


@given(SETS, st.data())
def test_a_row_is_found_by_its_place(held: list[bool], data: st.DataObject) -> None:
    """The row at a place is the one that stands there in the list of all rows."""
    rows = [row for row, is_in in enumerate(held) if is_in]
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9) if rows else st.just([]))
    found = rows_at(packed(np.array(held)), np.array(places, np.int64))
    assert found.tolist() == [rows[place] for place in places]


@given(SETS, st.data())
def test_rows_are_taken_out(held: list[bool], data: st.DataObject) -> None:
    """Rows taken out are gone, all others stay."""
    gone = data.draw(st.sets(st.integers(0, len(held) - 1)))
    mask = packed(np.array(held))
    without(mask, gone)
    assert rows_of(mask).tolist() == [
        row for row, is_in in enumerate(held) if is_in and row not in gone
    ]
