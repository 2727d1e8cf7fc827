"""What a replay starts from: its catalog, its running rate, its files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.replay.line import no_ads, seen
from jobs.replay.predictions import Predictions
from jobs.replay.run import run
from models.errors import SchemaInvalid
from models.types import Batch, Ragged


def test_running_rate_knows_only_earlier_chunks() -> None:
    """The first chunk is predicted with the base rate, the second with the first's clicks."""
    predictions, times = Predictions(0.5), np.arange(3)
    nothing = _ragged([[[1]]] * 3, 1)
    for _ in range(2):
        batch = Batch(times, times, np.ones(3, np.float32), nothing, nothing)
        predictions.add(batch, np.ones(3), np.ones(3))
    assert predictions.all().running_rate.tolist() == [0.5] * 3 + [3.5 / 4] * 3


def _ragged(rows: list[list[list[int]]], features: int) -> Ragged:
    cells = [cell for row in rows for cell in row]
    ids = np.array([value for cell in cells for value in cell], np.int64)
    ptr = np.cumsum([0, *(len(cell) for cell in cells)], dtype=np.int64)
    return Ragged(ids, ptr, features)


def _cells(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.ids, ragged.ptr[1:-1])]


CELLS = st.lists(st.integers(0, 99), min_size=1, max_size=3)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.data())
def test_rows_are_taken_whole(rows: list[tuple[list[int], list[int]]], data: st.DataObject) -> None:
    """Any rows, in any order and repeated, keep their values."""
    picked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = _ragged([list(row) for row in rows], 2).take(np.array(picked, np.int64))
    assert len(taken) == len(picked)
    if picked:
        assert _cells(taken) == [cell for i in picked for cell in rows[i]]


def test_an_ad_keeps_the_features_it_last_had() -> None:
    """The catalog of a replay is in order of id and takes an ad's newest features."""

    def batch(ads: list[int], values: list[list[int]]) -> Batch:
        features = _ragged([[value] for value in values], 1)
        label = np.zeros(len(ads), np.float32)
        ids = np.array(ads)
        return Batch(ids, ids, label, features, features)

    first = seen(no_ads(1), batch([5, 3, 5], [[1], [2], [3, 4]]))
    assert first.ad_ids.tolist() == [3, 5]
    assert _cells(first.features) == [[2], [3, 4]]
    second = seen(first, batch([3, 9], [[7], [8]]))
    assert second.ad_ids.tolist() == [3, 5, 9]
    assert _cells(second.features) == [[7], [3, 4], [8]]


@pytest.mark.parametrize("text", ["version = ", "version = 1\nbogus = 1"])
def test_schema_error_names_the_file_given(tmp_path: Path, text: str) -> None:
    """Not features.toml, when the schema is in another file."""
    other = tmp_path / "other.toml"
    other.write_text(text)
    with pytest.raises(SchemaInvalid, match=re.escape(str(other))):
        run(tmp_path / "log.csv", other, "clicked", "1h", None, None, 1)
