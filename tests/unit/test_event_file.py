"""What a file of events brings: which of its rows, of which line, under which ids."""

from __future__ import annotations

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from jobs.transfer.event_file import EventFile
from jobs.transfer.importing import Imported, check_file
from jobs.transfer.sources import Rejected
from models.features import Encoder, pack
from models.schema import parse_schema

SCHEMA = parse_schema(
    """
    version = 1
    [user.geo]
    kind = "categorical"
    [user.age]
    kind = "numeric"
    edges = [18, 30]
    [ad.category]
    kind = "multi"
    """
)
HEAD = "decided_at,ad_id,clicked,placement,user.geo,user.age,ad.category"
TIME = "2026-01-02T10:00:00Z"
DAY = date(2026, 1, 2)
ROWS = (
    f"{TIME},7,1,home,us,33,shoes|hats",
    f"{TIME},8,0,home,ca,,shoes",
    f"{TIME},9,0,,us,18,",
)
BLOB = pack(
    Encoder(SCHEMA).encode_user({"geo": "us", "age": 33}),
    Encoder(SCHEMA).encode_ad({"category": ["shoes", "hats"]}),
).hex()


def _check(folder: Path, text: str | bytes, name: str = "log.csv") -> Imported:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return check_file(path, SCHEMA)


def _csv(*rows: str, head: str = HEAD) -> str:
    return "\n".join((head, *rows)) + "\n"


def _json(**given: Any) -> str:
    return json.dumps({"decided_at": TIME, "ad_id": 7, **given})


def _places(found: Imported) -> list[tuple[int, str]]:
    return [(one.line, one.field) for one in found.rejected]


def _ids(path: Path) -> dict[tuple[int, str, bytes], int]:
    """The keys of all events of the day, each with how often it is there."""
    found: dict[tuple[int, str, bytes], int] = {}
    with EventFile(path, SCHEMA) as file:
        for rows in file.rows(DAY):
            for ad_id, decision in zip(rows.ad_id.tolist(), rows.decision, strict=True):
                key = (ad_id, rows.kind, bytes(decision))
                found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(
    "features", ["ff", "", BLOB[:-2], BLOB + "00" * 8, "00" + BLOB[2:], "zz", "f", "f" * 6]
)
@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_features_of_another_schema_are_rejected(tmp_path: Path, features: str, kind: str) -> None:
    """What training could not take apart, or has none at all, never gets in."""
    if kind == "csv":
        rows = (f"{TIME},7,{BLOB}", f"{TIME},7,{features}", f"{TIME},8,{BLOB}")
        text = _csv(*rows, head="decided_at,ad_id,features")
    else:
        text = "\n".join(_json(features=one) for one in (BLOB, features, BLOB))
    found = _check(tmp_path, text, f"log.{kind}")
    line = 3 if kind == "csv" else 2
    assert (_places(found), found.written) == ([(line, "features")], 2)


def test_a_click_needs_no_features(tmp_path: Path) -> None:
    """Only impressions are learned from."""
    text = _csv(
        f"{TIME},7,click,", f"{TIME},7,impression,{BLOB}", head="decided_at,ad_id,type,features"
    )
    found = _check(tmp_path, text)
    assert (found.written, found.rejected) == (2, [])


def test_rows_without_an_id_are_told_by_what_they_hold(tmp_path: Path) -> None:
    """Two files of one name are two files; one file is the same from anywhere, by any name."""
    ids = []
    for folder, name, rows in (
        ("a", "log", ROWS[:1]),
        ("b", "log", ROWS[1:2]),
        ("c", "own", ROWS[:1]),
    ):
        path = tmp_path / folder / f"{name}.csv"
        path.parent.mkdir()
        path.write_text(_csv(*rows))
        ids.append(_ids(path))
    assert ids[0] == ids[2]
    decisions = [{decision for _, _, decision in one} for one in ids]
    assert not decisions[0] & decisions[1]
    assert len(decisions[0]) == 1  # the impression's is its click's


def test_a_line_put_into_a_file_moves_no_id(tmp_path: Path) -> None:
    """A mended file brings what is new in it, rows that it had twice included."""
    path = tmp_path / "log.csv"
    path.write_text(_csv(*ROWS, ROWS[0]))
    before = _ids(path)
    path.write_text(_csv(f"{TIME},10,0,home,us,33,", *ROWS[:2], "", ROWS[0], ROWS[2]))
    after = _ids(path)
    assert (len(before), set(before.values())) == (6, {1})
    assert [ad_id for ad_id, _, _ in after.keys() - before.keys()] == [10]
    assert before.keys() <= after.keys()


@pytest.mark.parametrize("kind", ["parquet", "ndjson"])
def test_a_row_has_one_id_in_every_format(tmp_path: Path, kind: str) -> None:
    """Its spelling does not matter: an id is that of the values."""
    lines, plain = tmp_path / "log.ndjson", tmp_path / "log.csv"
    row = {"clicked": 1, "placement": "home", "user.geo": "us", "user.age": 33.0}
    lines.write_text(_json(**row, **{"ad.category": ["hats", "shoes"]}))
    plain.write_text(_csv(ROWS[0]))
    path = tmp_path / f"log.{kind}"
    if kind == "parquet":
        duckdb.execute(f"COPY (FROM '{lines}') TO '{path}'")
    assert _ids(path) == _ids(plain)


@pytest.mark.parametrize("rows", [ROWS * 3, ROWS[:1] * 5, (*ROWS, ROWS[1], f"{TIME},0,,,,,")])
def test_rows_that_are_equal_are_events_of_their_own(tmp_path: Path, rows: list[str]) -> None:
    """However often a row is there, each is stored."""
    path = tmp_path / "log.csv"
    path.write_text(_csv(*rows))
    found = _ids(path)
    assert set(found.values()) == {1}
    shown = sum(kind == "impression" for _, kind, _ in found)
    assert shown == sum(row in ROWS for row in rows)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_file_without_rows_brings_none(tmp_path: Path, kind: str) -> None:
    """Of a quiet hour there may be a file too."""
    path = tmp_path / f"log.{kind}"
    duckdb.execute(f"COPY (SELECT '' AS decided_at, 0 AS ad_id LIMIT 0) TO '{path}'")
    found = check_file(path, SCHEMA)
    assert (found.written, found.rejected) == (0, [])


def test_a_line_is_the_one_an_editor_shows(tmp_path: Path) -> None:
    """Line breaks in quotes and blank lines count as lines, and a row begins in its first."""
    bad = f'{TIME},0,0,home,"a\nb",18,'
    text = _csv(f'{TIME},7,0,home,"a\r\nb\n",18,', "", bad, "", "", bad, ROWS[0])
    found = _check(tmp_path, text)
    assert (_places(found), found.written) == ([(6, "ad_id"), (10, "ad_id")], 3)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert check_file(tmp_path / "log.csv.gz", SCHEMA).rejected == found.rejected


def test_a_blank_line_of_ndjson_counts_too(tmp_path: Path) -> None:
    """It is no row, but it is a line."""
    text = "\n".join(("", _json(), " ", "", _json(ad_id=0)))
    assert _places(_check(tmp_path, text, "log.ndjson")) == [(5, "ad_id")]


@pytest.mark.parametrize(
    "bad",
    [
        ROWS[0] + ",more",
        "2026-01-02T10:00:00Z,7",
        f'{TIME},7,0,home,"us" x,18,',
        f'{TIME},7,0,home,"us,18,',
    ],
)
def test_what_is_no_row_of_csv_is_rejected_alone(tmp_path: Path, bad: str) -> None:
    """The rows before and after it are taken, and faults among them have their own lines."""
    text = _csv(
        ROWS[1], '2026-01-02T10:00:00Z,5,0,home,"a\nb",3,', bad, "", ROWS[2], f"{TIME},0,0,,,,"
    )
    found = _check(tmp_path, text)
    assert (_places(found), found.written) == ([(5, "row"), (8, "ad_id")], 3)


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_cost_one_row(tmp_path: Path, text: bytes) -> None:
    """So does a file whose lines end in two ways cost none."""
    bad = f"{TIME},7,0,home,".encode() + text + b",18,\r\n"
    found = _check(tmp_path, _csv(*ROWS).encode() + bad + _csv(ROWS[1]).encode()[len(HEAD) + 1 :])
    assert (_places(found), found.written) == ([(5, "row")], 5)


@pytest.mark.parametrize(
    "bad", ["{bad", "[1]", "3", '{"ad_id": "\\ud800"}', '{"ad_id": 1} {"ad_id": 2}', '"\x01"']
)
def test_what_is_no_object_of_ndjson_is_rejected_alone(tmp_path: Path, bad: str) -> None:
    """None is lost unseen, and the rows around it are taken."""
    text = "\n".join((_json(), "", bad, _json(ad_id=8), _json(ad_id=-1)))
    found = _check(tmp_path, text, "log.ndjson")
    assert (_places(found), found.written) == ([(3, "row"), (5, "ad_id")], 2)


def test_a_key_that_comes_late_is_a_column(tmp_path: Path) -> None:
    """A value in a million lines is not taken for missing because the first ones have none."""
    lines = [_json() for _ in range(30_000)]
    text = "\n".join((*lines, _json(clicked=1)))
    assert _check(tmp_path, text, "log.ndjson").written == 30_002


@pytest.mark.parametrize(
    ("field", "value"), [("propensity", 1e-46), ("propensity", 1.5), ("placement", "a\0b")]
)
@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_what_the_database_refuses_is_rejected_before(
    tmp_path: Path, field: str, value: object, kind: str
) -> None:
    """One such row does not keep a day from being stored."""
    good: dict[str, object] = {"propensity": 0.5, "placement": "home"}
    path = tmp_path / f"log.{kind}"
    if kind == "csv":
        texts = [
            f"{TIME},7,{one['propensity']},{one['placement']}"
            for one in (good, good | {field: value})
        ]
        path.write_text(_csv(*texts, head="decided_at,ad_id,propensity,placement"))
    else:
        lines = tmp_path / "log.ndjson"
        lines.write_text("\n".join((_json(**good), _json(**(good | {field: value})))))
        if kind == "parquet":
            duckdb.execute(f"COPY (FROM '{lines}') TO '{path}'")
    found = check_file(path, SCHEMA)
    assert (_places(found), found.written) == ([(3 if kind == "csv" else 2, field)], 1)


def test_a_rejected_row_says_what_was_there(tmp_path: Path) -> None:
    """Whoever mends the file sees the row and what it should be."""
    [found] = _check(tmp_path, _csv(ROWS[0], f"{TIME},7")).rejected
    assert found == Rejected(3, "row", f"{TIME},7", "a row of 7 fields, as in the header: it has 2")


def test_old_events_are_counted(tmp_path: Path) -> None:
    """What retention would drop, and may have dropped before, is told before it is stored."""
    path = tmp_path / "log.csv"
    path.write_text(_csv(*ROWS))
    assert check_file(path, SCHEMA, oldest=date(2026, 1, 3)).old == 4
    assert check_file(path, SCHEMA, oldest=DAY).old == 0
