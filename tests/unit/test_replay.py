"""The figures, the catalog and the page of a replay."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.replay import ReportUnwritable, check_writable, no_ads, rows_of, run, seen
from jobs.replay_figures import Predictions
from jobs.replay_page import Series, chart
from models.errors import SchemaInvalid
from models.types import Batch, Ragged


def test_running_rate_knows_only_earlier_chunks() -> None:
    """The first chunk is predicted with the base rate, the second with the first's clicks."""
    predictions, times = Predictions(0.5), np.arange(3)
    for _ in range(2):
        predictions.add(times, np.ones(3, np.float32), np.ones(3), np.ones(3))
    *_, rate = predictions.all()
    assert rate.tolist() == [0.5] * 3 + [3.5 / 4] * 3


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
    taken = rows_of(_ragged([list(row) for row in rows], 2), np.array(picked, np.int64))
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


def test_a_chart_leaves_gaps_where_a_figure_is_undefined() -> None:
    """A missing value ends the line; the next one starts another."""
    drawn = chart([0.0, 1.0, 2.0, 3.0, 4.0], [Series("a", "x", [1.0, 2.0, None, 2.0, 1.0])])
    (path,) = re.findall(r'class="series" d="([^"]+)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 2


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=5), st.booleans())
def test_a_chart_is_always_well_formed(values: list[float | None], marked: bool) -> None:
    """One point, equal values, gaps only: the markup parses and holds no NaN."""
    times = [float(i) for i in range(len(values))]
    drawn = chart(times, [Series("a", "x", values)], 1.0 if marked else None)
    ElementTree.fromstring(drawn.replace("<span class=key", '<span class="key"'))  # noqa: S314
    assert "nan" not in drawn


def test_unwritable_report_is_refused_before_the_replay(tmp_path: Path) -> None:
    """A folder, or a file below a file, cannot be written; a folder that is missing is made."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(ReportUnwritable, match="--report"):
            check_writable("--report", path)
    check_writable("--report", tmp_path / "new" / "report.json")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize("text", ["version = ", "version = 1\nbogus = 1"])
def test_schema_error_names_the_file_given(tmp_path: Path, text: str) -> None:
    """Not features.toml, when the schema is in another file."""
    other = tmp_path / "other.toml"
    other.write_text(text)
    with pytest.raises(SchemaInvalid, match=re.escape(str(other))):
        run(tmp_path / "log.csv", other, "clicked", "1h", None, None, 1)
