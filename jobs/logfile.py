"""Replay logs: CSV (gz too) or Parquet files of impressions, as batches in time order.

DuckDB parses, sorts and dictionary-codes the file into a temporary database on disk; each distinct
value then goes once through the same encoder as a request's, so memory stays bounded by the
number of distinct values and the size of one block.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import duckdb
import numpy as np

from jobs.scratch import Scratch
from models.errors import FeatureValueInvalid, LogInvalid
from models.features import Encoder, Feature, Schema
from models.types import MAX_ID, Batch, Float64s, Int64s, Ragged

BLOCK_EVENTS = 262_144
"""How many events are decoded at once; a chunk is never split over two blocks."""

_EARLIEST_MS, _LATEST_MS = 10**11, 10**14
BID = "bid_micros"
"""The one column that a log may have or lack."""

_MILLISECONDS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_PLAIN = {*_INTEGERS, *(f"U{kind}" for kind in _INTEGERS), "FLOAT", "DOUBLE", "BOOLEAN", "VARCHAR"}


def chunk_ms(text: str) -> int:
    """The length of "15m", "1h" or "1d" in milliseconds. Raises `LogInvalid`."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", text.strip())
    if match is None:
        limit = "a whole number and one of s, m, h, d"
        raise LogInvalid("chunk", text, limit, 'Write for instance "15m", "1h" or "1d".')
    return int(match[1]) * _MILLISECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The hashes of one feature's distinct raw values, a CSR block by code.

    The hashes of code c are `ids[starts[c] : starts[c] + counts[c]]`.
    """

    ids: Int64s
    starts: Int64s
    counts: Int64s


class Log(Scratch):
    """An opened replay log: its rows checked, sorted by time and coded. Close it, or use `with`.

    Rows of one time keep the file's order. Raises `LogInvalid` naming the file, the column or the
    line, and the remedy, for anything that does not fit the schema.
    """

    def __init__(
        self, path: Path, schema: Schema, label: str, block_events: int = BLOCK_EVENTS
    ) -> None:
        self.path, self.schema, self.label = Path(path), schema, label
        self._block_events = block_events
        self._features = schema.user + schema.ad
        super().__init__("replay")
        try:
            self._open()
        except duckdb.Error as error:
            self.close()
            raise _unreadable(self.path, str(error)) from error
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM events"))

    def chunks(self, length_ms: int) -> Iterator[tuple[int, Batch]]:
        """Each non-empty chunk with its start in ms; starts are multiples of the length in UTC."""
        starts, sizes = self._bounds(length_ms)
        stops = np.cumsum(sizes)
        first = 0
        while first < len(starts):
            begin = int(stops[first] - sizes[first])
            last = int(np.searchsorted(stops, begin + self._block_events, side="right"))
            last = max(last, first + 1)
            block = self._block(begin, int(stops[last - 1]))
            for i in range(first, last):
                end = int(stops[i]) - begin
                yield int(starts[i]), block.rows(end - int(sizes[i]), end)
            first = last

    def chunk_count(self, length_ms: int) -> int:
        """How many chunks of this length hold at least one event."""
        return len(self._bounds(length_ms)[0])

    def span_ms(self) -> tuple[int, int]:
        """The times of the first and the last event."""
        first, last = (self._one(f"SELECT {end}(time) FROM events") for end in ("min", "max"))  # noqa: S608
        return int(first), int(last)

    def bids(self) -> Float64s | None:
        """Each event's `bid_micros`, in the order of `chunks`: float64 [n], NaN where it is empty.

        None if the log has no such column.
        """
        if BID not in self._columns:
            return None
        found = self._database.execute(
            "SELECT coalesce(CAST(bid AS DOUBLE), 'NaN') AS bid FROM events ORDER BY rowid"
        ).fetchnumpy()
        return np.asarray(found["bid"], np.float64)

    def _bounds(self, length_ms: int) -> tuple[Int64s, Int64s]:
        found = self._database.execute(
            "SELECT (time // $1) * $1 AS start, count(*) AS size FROM events GROUP BY 1 ORDER BY 1",
            [length_ms],
        ).fetchnumpy()
        return np.asarray(found["start"], np.int64), np.asarray(found["size"], np.int64)

    def _block(self, begin: int, end: int) -> Batch:
        rows = self._database.execute(
            "SELECT * FROM events WHERE rowid >= $1 AND rowid < $2 ORDER BY rowid", [begin, end]
        ).fetchnumpy()
        codes = [np.asarray(rows[f"c{i}"], np.int64) for i in range(len(self._features))]
        users = len(self.schema.user)
        return Batch(
            np.asarray(rows["time"], np.int64),
            np.asarray(rows["ad_id"], np.int64),
            np.asarray(rows["label"], np.float32),
            gather(self._dictionaries[:users], codes[:users]),
            gather(self._dictionaries[users:], codes[users:]),
        )

    def _open(self) -> None:
        self._database.execute("SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET threads = 2")
        self._database.execute("SET disabled_optimizers = 'join_order'")
        self._load()
        self._convert()
        self._check_rows()
        encoder = Encoder(self.schema)
        self._dictionaries = [
            self._dictionary(encoder, i, feature) for i, feature in enumerate(self._features)
        ]
        joins = "".join(
            f" LEFT JOIN d{i} ON raw.v{i} IS NOT DISTINCT FROM d{i}.value"
            for i in range(len(self._features))
        )
        codes = "".join(f", d{i}.code AS c{i}" for i in range(len(self._features)))
        self._database.execute(
            f"CREATE TABLE events AS SELECT time, ad_id, label, bid{codes} FROM raw{joins} "  # noqa: S608
            "ORDER BY time, line"
        )
        self._database.execute("DROP TABLE raw")

    def _load(self) -> None:
        if not self.path.is_file():
            raise LogInvalid(
                "log", str(self.path), "no such file", "Give the path of a CSV or Parquet file."
            )
        if _is_empty(self.path):
            raise LogInvalid("log", str(self.path), "it is empty", "Give a log with events.")
        if self.path.suffix == ".parquet":
            names = self._database.execute(
                "SELECT * FROM read_parquet($1) LIMIT 0", [str(self.path)]
            ).description
            self._columns = [str(item[0]) for item in names or []]
            source, given = "read_parquet($1)", [str(self.path)]
        else:
            self._columns = _header(self.path)
            source = (
                "read_csv($1, auto_detect = false, header = true, delim = ',', quote = '\"', "
                "escape = '\"', columns = $2)"
            )
            given = [str(self.path), dict.fromkeys(self._columns, "VARCHAR")]  # type: ignore[list-item]
        if not self._columns:
            limit = "it has no header: its first line is empty"
            raise LogInvalid("log", str(self.path), limit, "Give a CSV with a header.")
        self._check_names(self._columns)
        kept = ", ".join(f"{_quoted(name)} AS {alias}" for alias, name in self._wanted().items())
        self._database.execute(
            f"CREATE TABLE given AS SELECT {kept} FROM {source}",  # noqa: S608  # quoted names
            given,
        )
        self._types = {
            str(name): str(kind)
            for name, kind, *_ in self._database.execute("DESCRIBE given").fetchall()
        }

    def _wanted(self) -> dict[str, str]:
        """Our name of each needed column: v0, v1 … for the features, in the schema's order."""
        features = {f"v{i}": item.full_name for i, item in enumerate(self._features)}
        bid = {"bid_given": BID} if BID in self._columns else {}
        roles = {"time_given": "time", "ad_given": "ad_id", "label_given": self.label}
        return {**roles, **bid, **features}

    def _check_names(self, columns: list[str]) -> None:
        for name in columns:
            if columns.count(name) > 1:
                raise self._column(name, "it occurs twice", "Keep one of the two columns.")
        declared = {item.full_name for item in self._features}
        for name in columns:
            if name.startswith(("user.", "ad.")) and name not in declared:
                remedy = "Declare it in the file of --features or remove the column."
                raise self._column(name, "the schema does not declare it", remedy)
        for name in self._wanted().values():
            if name not in columns:
                remedy = f"Add the column; the file has {', '.join(columns[:30])}."
                if name == self.label:
                    remedy += " The label is named with --label."
                raise self._column(name, "the file lacks this column", remedy)

    def _convert(self) -> None:
        """Bring what is not a feature to numbers, null where that fails, beside the file's line."""
        first = 1 if self.path.suffix == ".parquet" else 2
        ad = "CAST(ad_given AS VARCHAR)"
        self._database.execute(
            f"CREATE TABLE raw AS SELECT *, rowid + {first} AS line, {self._time()} AS time, "  # noqa: S608
            f"CASE WHEN regexp_full_match({ad}, '[0-9]+') THEN try_cast({ad} AS BIGINT) END "
            f"AS ad_id, try_cast(label_given AS DOUBLE) AS label, {self._bid()} AS bid FROM given"
        )
        self._database.execute("DROP TABLE given")

    def _bid(self) -> str:
        """Negative for a bid that is none, null for an empty one or without the column."""
        if BID not in self._columns:
            return "NULL::BIGINT"
        text = "CAST(bid_given AS VARCHAR)"
        whole = rf"regexp_full_match({text}, '[0-9]+(\.0)?')"
        number = f"CASE WHEN {whole} THEN coalesce(try_cast({text} AS BIGINT), -1) ELSE -1 END"
        return f"CASE WHEN nullif({text}, '') IS NOT NULL THEN {number} END"

    def _time(self) -> str:
        if self._types["time_given"].startswith("TIMESTAMP"):
            return "epoch_ms(CAST(time_given AS TIMESTAMPTZ))"
        text = "CAST(time_given AS VARCHAR)"
        return (
            f"CASE WHEN regexp_full_match({text}, '[0-9]+(\\.0)?') THEN try_cast({text} AS BIGINT) "
            f"ELSE epoch_ms(try_cast({text} AS TIMESTAMPTZ)) END"
        )

    def _check_rows(self) -> None:
        if not self._one("SELECT count(*) FROM raw"):
            raise LogInvalid("log", str(self.path), "it has no rows", "Give a log with events.")
        self._check_all(
            "time",
            f"time BETWEEN {_EARLIEST_MS} AND {_LATEST_MS}",
            "epoch milliseconds or RFC 3339, after 1973",
            "Multiply seconds by 1000, or write 2026-11-22T09:00:00Z.",
        )
        self._check_all(
            "ad", f"ad_id BETWEEN 0 AND {MAX_ID}", f"a whole number up to {MAX_ID}", "Mend the id."
        )
        self._check_all(
            "label", "label IN (0, 1)", "a label is 0 or 1", "Name a 0/1 column with --label."
        )
        if BID in self._columns:
            limit = f"a whole number of micros up to {MAX_ID}, or empty"
            self._check_all(
                "bid", f"bid IS NULL OR bid BETWEEN 0 AND {MAX_ID}", limit, "Mend the bid."
            )

    def _check_all(self, role: str, holds: str, limit: str, remedy: str) -> None:
        row = self._database.execute(
            f"SELECT line, CAST({role}_given AS VARCHAR) FROM raw WHERE ({holds}) IS NOT TRUE "  # noqa: S608
            "ORDER BY line LIMIT 1"
        ).fetchone()
        if row is not None:
            column = self._wanted()[f"{role}_given"]
            raise LogInvalid(f"{self.path.name}, line {row[0]}, {column}", row[1], limit, remedy)

    def _dictionary(self, encoder: Encoder, i: int, feature: Feature) -> Dictionary:
        self._database.execute(
            f"CREATE TABLE d{i} AS SELECT CAST(row_number() OVER () - 1 AS INTEGER) AS code, value "  # noqa: S608
            f"FROM (SELECT DISTINCT v{i} AS value FROM raw)"
        )
        found = self._database.execute(
            f"SELECT {self._readable(i)} FROM d{i} ORDER BY code"  # noqa: S608
        ).fetchall()
        encode = encoder.encode_user if feature.side == "user" else encoder.encode_ad
        side = self.schema.user if feature.side == "user" else self.schema.ad
        at = side.index(feature)
        hashes: list[Int64s] = []
        for code, (raw,) in enumerate(found):
            try:
                encoded = encode({feature.name: _separated(feature, raw)})
            except FeatureValueInvalid as error:
                raise self._misfit(i, code, feature, error) from error
            skipped = len(side) - 1 - at
            hashes.append(encoded.ids[at : len(encoded.ids) - skipped])
        counts = np.array([len(item) for item in hashes], np.int64)
        return Dictionary(np.concatenate(hashes), np.cumsum(counts) - counts, counts)

    def _readable(self, i: int) -> str:
        kind = self._types[f"v{i}"]
        plain = kind.removesuffix("[]") in _PLAIN
        return "value" if plain else "CAST(value AS VARCHAR)"

    def _misfit(
        self, i: int, code: int, feature: Feature, error: FeatureValueInvalid
    ) -> LogInvalid:
        name = feature.full_name
        line = self._one(
            f"SELECT min(line) FROM raw, d{i} WHERE d{i}.code = {code} "  # noqa: S608
            f"AND raw.v{i} IS NOT DISTINCT FROM d{i}.value"
        )
        where = f"{self.path.name}, line {line}, {name}"
        return LogInvalid(where, error.value, error.limit, error.remedy)

    def _one(self, query: str) -> Any:
        row = self._database.execute(query).fetchone()
        return row[0] if row else None

    def _column(self, name: str, limit: str, remedy: str) -> LogInvalid:
        return LogInvalid(f"{self.path.name}, column {name}", name, limit, remedy)


def gather(dictionaries: list[Dictionary], codes: list[Int64s]) -> Ragged:
    """The CSR block of n rows given as one code per row and feature, int64 [n] for each."""
    counts = np.column_stack([d.counts[c] for d, c in zip(dictionaries, codes, strict=True)])
    ptr = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=ptr[1:])
    starts = ptr[:-1].reshape(counts.shape)
    ids = np.empty(int(ptr[-1]), np.int64)
    for f, (known, code) in enumerate(zip(dictionaries, codes, strict=True)):
        width = counts[:, f]
        within = np.arange(int(width.sum())) - np.repeat(np.cumsum(width) - width, width)
        source = np.repeat(known.starts[code], width) + within
        ids[np.repeat(starts[:, f], width) + within] = known.ids[source]
    return Ragged(ids, ptr, len(dictionaries))


def _separated(feature: Feature, raw: object) -> Any:
    if feature.kind == "multi" and isinstance(raw, str):
        return raw.split("|")
    return raw


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _is_empty(path: Path) -> bool:
    """Whether there is no byte in the file, or none packed in it."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return not file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, str(error)) from error


def _header(path: Path) -> list[str]:
    try:
        with _opened(path) as file:
            return next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, str(error)) from error


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _unreadable(path: Path, message: str) -> LogInvalid:
    line = re.search(r"on Line: (\d+)", message)
    where = f"{path.name}, line {line[1]}" if line else "log"
    reason = " ".join(message.split("Possible fixes")[0].split())[:300]
    remedy = "Give a CSV with a header (gzip when named .gz) or a .parquet file."
    return LogInvalid(where, str(path), f"it cannot be read: {reason}", remedy)
