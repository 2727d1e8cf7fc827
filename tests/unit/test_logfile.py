"""Replay logs: what is read, what is refused, and that features hash as everywhere else."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import duckdb
import numpy as np
import pytest

from jobs.logfile import Log, chunk_ms
from models.errors import LogInvalid
from models.features import Encoder, load_schema, parse_schema, stack
from models.types import Batch

DATA = Path(__file__).parents[1] / "data"
SCHEMA = load_schema(DATA / "features.toml")
HOUR = 3_600_000
SMALL = parse_schema(
    'version = 1\n[user.age]\nkind = "numeric"\nedges = [30]\n'
    '[ad.tag]\nkind = "multi"\n[ad.size]\nkind = "categorical"\n'
)
HEADER = "time,ad_id,clicked,user.age,ad.tag,ad.size\n"
ROW = "1650813567259,7,1,31,a|b,3\n"


def _written(folder: Path, text: str) -> Path:
    path = folder / "log.csv"
    path.write_text(text, encoding="utf-8")
    return path


def _all(path: Path, schema=SMALL) -> Batch:
    with Log(path, schema, "clicked") as log:
        ((_, batch),) = log.chunks(10**13)
        return batch


def _refused(folder: Path, text: str, label: str = "clicked") -> LogInvalid:
    with pytest.raises(LogInvalid) as caught:
        Log(_written(folder, text), SMALL, label)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("text", "length"), [("30s", 30_000), ("15m", 900_000), ("1h", HOUR), ("2d", 172_800_000)]
)
def test_chunk_lengths_are_read(text: str, length: int) -> None:
    """A whole number and a unit."""
    assert chunk_ms(text) == length


@pytest.mark.parametrize("text", ["", "1", "h", "0h", "-1h", "1.5h", "1w", "9999999d"])
def test_other_chunk_lengths_are_refused(text: str) -> None:
    """Anything else names the remedy."""
    with pytest.raises(LogInvalid, match='"1h"'):
        chunk_ms(text)


def test_features_hash_as_the_encoder_hashes_them() -> None:
    """Every row of the log equals the same row sent through the encoder."""
    with (DATA / "log.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    encoder = Encoder(SCHEMA)

    def values(row: dict[str, str], side: str) -> dict[str, object]:
        return {
            item.name: row[item.full_name].split("|")
            if item.kind == "multi"
            else row[item.full_name]
            for item in getattr(SCHEMA, side)
        }

    batch = _all(DATA / "log.csv", SCHEMA)
    users = stack([encoder.encode_user(values(row, "user")) for row in rows], len(SCHEMA.user))
    ads = stack([encoder.encode_ad(values(row, "ad")) for row in rows], len(SCHEMA.ad))
    for got, wanted in ((batch.user, users), (batch.ad, ads)):
        np.testing.assert_array_equal(got.ids, wanted.ids)
        np.testing.assert_array_equal(got.ptr, wanted.ptr)
    np.testing.assert_array_equal(batch.time_ms, [int(row["time"]) for row in rows])
    np.testing.assert_array_equal(batch.ad_id, [int(row["ad_id"]) for row in rows])
    np.testing.assert_array_equal(batch.label, [int(row["clicked"]) for row in rows])


def test_chunks_are_aligned_and_complete() -> None:
    """Chunks start at whole hours, hold exactly their hour's events, and lose none."""
    with Log(DATA / "log.csv", SCHEMA, "clicked", block_events=100) as log:
        chunks = list(log.chunks(HOUR))
        assert len(chunks) == log.chunk_count(HOUR) == 48
        assert sum(len(batch) for _, batch in chunks) == len(log) == 2_000
    for start, batch in chunks:
        assert start % HOUR == 0
        assert batch.time_ms.min() >= start
        assert batch.time_ms.max() < start + HOUR
        assert len(batch.user) == len(batch.ad) == len(batch)


def test_block_size_changes_nothing() -> None:
    """A chunk longer than a block arrives whole and equal."""
    whole = _all(DATA / "log.csv", SCHEMA)
    with Log(DATA / "log.csv", SCHEMA, "clicked", block_events=7) as log:
        ((_, batch),) = log.chunks(10**13)
    np.testing.assert_array_equal(batch.user.ids, whole.user.ids)


def test_events_are_sorted_by_time(tmp_path: Path) -> None:
    """A log in any order is replayed in time order; equal times keep the file's order."""
    rows = "1650813567259,3,0,1,,\n1650813567000,1,1,1,,\n1650813567259,2,0,1,,\n"
    assert _all(_written(tmp_path, HEADER + rows)).ad_id.tolist() == [1, 3, 2]


@pytest.mark.parametrize(
    "time",
    ["1650844800000", "2022-04-25T00:00:00Z", "2022-04-25T02:00:00+02:00", "2022-04-25 00:00:00"],
)
def test_times_are_milliseconds_or_rfc_3339(tmp_path: Path, time: str) -> None:
    """Four spellings of the same instant; a time without an offset is UTC."""
    path = _written(tmp_path, HEADER + ROW.replace("1650813567259", time))
    assert _all(path).time_ms.tolist() == [1650844800000]


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("1650813567259", "yesterday", "log.csv, line 3, time"),
        ("1650813567259", "1650813567", "log.csv, line 3, time"),
        ("1650813567259", "", "log.csv, line 3, time"),
        (",7,", ",seven,", "log.csv, line 3, ad_id"),
        (",7,", ",-7,", "log.csv, line 3, ad_id"),
        (",7,", ",1.5,", "log.csv, line 3, ad_id"),
        (",1,31", ",2,31", "log.csv, line 3, clicked"),
        (",1,31", ",,31", "log.csv, line 3, clicked"),
        (",1,31", ",yes,31", "log.csv, line 3, clicked"),
        (",31,", ",old,", "log.csv, line 3, user.age"),
        (",3\n", "\n", "log.csv, line 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, before: str, after: str, field: str) -> None:
    """The line and the column of the first bad value are in the error."""
    error = _refused(tmp_path, HEADER + ROW + ROW.replace(before, after, 1) + ROW)
    assert error.field == field


@pytest.mark.parametrize("name", ["time", "ad_id", "clicked", "user.age", "ad.size"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    """Every role and every declared feature must have its column."""
    assert _refused(tmp_path, HEADER.replace(name, "other", 1) + ROW).value == name


def test_an_undeclared_feature_column_is_named(tmp_path: Path) -> None:
    """A user. or ad. column that the schema lacks is a mistake in one of the two."""
    text = HEADER.replace("\n", ",user.geo\n") + ROW.replace("\n", ",us\n")
    assert _refused(tmp_path, text).value == "user.geo"


def test_a_repeated_column_is_named(tmp_path: Path) -> None:
    """Two columns of one name leave open which is meant."""
    text = HEADER.replace("\n", ",clicked\n") + ROW.replace("\n", ",0\n")
    assert _refused(tmp_path, text).value == "clicked"


def test_a_label_that_is_no_column_is_named(tmp_path: Path) -> None:
    """The error points to --label."""
    assert "--label" in _refused(tmp_path, HEADER + ROW, label="liked").remedy


def test_other_columns_are_ignored(tmp_path: Path) -> None:
    """Bids, propensities and other labels may stand in the log."""
    text = HEADER.replace("\n", ",propensity\n") + ROW.replace("\n", ",0.1\n")
    assert len(_all(_written(tmp_path, text))) == 1


def test_an_empty_log_is_refused(tmp_path: Path) -> None:
    """A header alone is nothing to replay."""
    assert "no rows" in _refused(tmp_path, HEADER).limit


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet"])
def test_a_file_without_a_byte_is_called_empty(tmp_path: Path, name: str) -> None:
    """No list of columns that are not there."""
    (tmp_path / name).touch()
    with pytest.raises(LogInvalid) as caught:
        Log(tmp_path / name, SMALL, "clicked")
    assert caught.value.limit == "it is empty"


def test_a_packed_file_of_nothing_is_called_empty(tmp_path: Path) -> None:
    """The archive has bytes, its content none."""
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(LogInvalid, match="it is empty"):
        Log(tmp_path / "log.csv.gz", SMALL, "clicked")


def test_an_empty_first_line_is_no_header(tmp_path: Path) -> None:
    """Columns would be missing for no reason that the error could name."""
    assert "first line is empty" in _refused(tmp_path, "\n" + HEADER + ROW).limit


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error carries the path."""
    with pytest.raises(LogInvalid, match="absent"):
        Log(tmp_path / "absent.csv", SMALL, "clicked")


@pytest.mark.parametrize("name", ["log.csv.gz", "log.parquet", "log.csv"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    """Bytes that are not what the name says are reported, not guessed at."""
    (tmp_path / name).write_bytes(b"\x00\xff\xfe not a table")
    with pytest.raises(LogInvalid, match=r"read|lacks"):
        Log(tmp_path / name, SMALL, "clicked")


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    """A download that stopped half way is an error, not a shorter log."""
    noise = "".join(f"16508135{i:05d},{i},{i % 2},{i},x{i * 7919 % 10007},3\n" for i in range(5000))
    packed = gzip.compress((HEADER + noise).encode())
    (tmp_path / "log.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(LogInvalid):
        Log(tmp_path / "log.csv.gz", SMALL, "clicked")


def test_gzip_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    """A gzipped CSV from a spreadsheet equals the plain one."""
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(("\ufeff" + HEADER + ROW).encode()))
    plain = _all(_written(tmp_path, HEADER + ROW))
    assert _all(tmp_path / "log.csv.gz").ad.ids.tolist() == plain.ad.ids.tolist()


def test_parquet_types_hash_like_the_text_of_a_csv(tmp_path: Path) -> None:
    """Timestamps, booleans, integers, floats and lists mean what the CSV's texts mean."""
    path = tmp_path / "log.parquet"
    duckdb.sql(
        "SELECT TIMESTAMP '2022-04-24 15:19:27.259' AS time, 7 AS ad_id, true AS clicked, "
        '31.0::DOUBLE AS "user.age", [\'b\', \'a\'] AS "ad.tag", 3 AS "ad.size"'
    ).write_parquet(str(path))
    typed, text = _all(path), _all(_written(tmp_path, HEADER + ROW))
    assert typed.time_ms.tolist() == text.time_ms.tolist()
    assert typed.user.ids.tolist() == text.user.ids.tolist()
    assert typed.ad.ids.tolist() == text.ad.ids.tolist()
    assert typed.label.tolist() == [1.0]


def test_bids_are_read_in_the_order_of_the_events(tmp_path: Path) -> None:
    """Sorted as the events are; an empty bid is none."""
    header = HEADER.replace("\n", ",bid_micros\n")
    rows = "1650813567259,3,0,1,,,\n1650813567000,1,1,1,,,250000\n1650813567259,2,0,1,,,7\n"
    with Log(_written(tmp_path, header + rows), SMALL, "clicked") as log:
        np.testing.assert_array_equal(log.bids(), [250_000, np.nan, 7])


def test_a_parquet_log_has_bids(tmp_path: Path) -> None:
    """A column of floats, as missing values make it elsewhere, still holds whole numbers."""
    path = tmp_path / "log.parquet"
    duckdb.sql(
        'SELECT 1650813567259 + i AS time, 7 AS ad_id, 1 AS clicked, 31 AS "user.age", '
        '\'a\' AS "ad.tag", 3 AS "ad.size", CASE i WHEN 0 THEN 350000.0::DOUBLE END AS bid_micros '
        "FROM range(2) AS t(i)"
    ).write_parquet(str(path))
    with Log(path, SMALL, "clicked") as log:
        np.testing.assert_array_equal(log.bids(), [350_000, np.nan])


def test_a_log_without_the_column_has_no_bids(tmp_path: Path) -> None:
    """That is not the same as a column without bids."""
    with Log(_written(tmp_path, HEADER + ROW), SMALL, "clicked") as log:
        assert log.bids() is None


@pytest.mark.parametrize("bid", ["-1", "1.5", "much", "9007199254740992"])
def test_a_bad_bid_is_named(tmp_path: Path, bid: str) -> None:
    """Bids are whole numbers of micros."""
    row = ROW.replace("\n", f",{bid}\n")
    text = HEADER.replace("\n", ",bid_micros\n") + ROW.replace("\n", ",5\n") + row
    error = _refused(tmp_path, text)
    assert (error.field, error.value) == ("log.csv, line 3, bid_micros", bid)


def test_the_span_of_a_log(tmp_path: Path) -> None:
    """The first and the last time, whatever the order of the rows."""
    rows = "".join(
        ROW.replace("1650813567259", time) for time in ("1650813567259", "1650813560000")
    )
    with Log(_written(tmp_path, HEADER + rows), SMALL, "clicked") as log:
        assert log.span_ms() == (1_650_813_560_000, 1_650_813_567_259)
