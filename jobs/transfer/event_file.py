"""A file of events (CSV, Parquet, NDJSON): read and checked by DuckDB, coded for a binary COPY.

DuckDB keeps the file in a temporary database on disk; each distinct value of a feature goes once
through the encoder that requests go through. Rows that do not fit are reported with their line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from jobs.logfile import Dictionary
from jobs.scratch import Scratch
from jobs.transfer.copy_rows import Rows, Voids, of_one_length, packed
from jobs.transfer.mapping import FIELDS, column_map
from models.erasure import NOTHING, Erased
from models.errors import FeatureValueInvalid, LogInvalid
from models.features import Encoder, Feature, Schema
from models.types import MAX_ID, Int64s, Ragged

BLOCK = 200_000
"""Rows that are coded at once."""

_UUID = "'[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}'"
_WHOLE = {
    "ad_id": (1, MAX_ID),
    "slot": (0, 32_767),
    "catalog_version": (0, MAX_ID),
    "price_micros": (0, MAX_ID),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not imported: its line, the field at fault, what it says and what is wrong."""

    line: int
    field: str
    value: str
    reason: str


class EventFile(Scratch):
    """An opened file. Use it with `with`. Raises `LogInvalid` for one that cannot be read at all.

    `clicked` = 1 makes a click beside the impression. A row without `decision_id` gets one from
    the file's name and its line, so that importing it again changes nothing.
    """

    def __init__(self, path: Path, schema: Schema, mapping: Path | None = None) -> None:
        self.path, self.schema = path, schema
        self._features = schema.user + schema.ad
        super().__init__("import")
        self.rejected: list[Rejected] = []
        try:
            self._open(mapping)
        except duckdb.Error as error:
            self.close()
            reason = " ".join(str(error).split("Possible fixes")[0].split())[:300]
            remedy = "Give CSV with a header (.csv, .gz), .parquet, or NDJSON (.ndjson, .jsonl)."
            raise LogInvalid(
                path.name, str(path), f"it cannot be read: {reason}", remedy
            ) from error
        except BaseException:
            self.close()
            raise

    def days(self) -> list[tuple[date, int]]:
        """The UTC days of the good rows in order, and how many events each has."""
        found: dict[date, int] = {}
        for day, _, _, _, count in self._segments:
            found[day] = found.get(day, 0) + count
        return list(found.items())

    def cuts(self, day: date, pieces: int) -> Int64s:
        """The times (ms) that part a day's events into pieces of about the same size: int64."""
        parts = [one / pieces for one in range(1, pieces)]
        row = self._database.execute(
            "SELECT quantile_disc(time_ms, $1) FROM good WHERE day = $2", [parts, day]
        ).fetchone()
        return np.array([] if row is None or not parts else row[0], np.int64)

    def rows(self, day: date, erased: Erased = NOTHING) -> Iterator[Rows]:
        """The events of one day, at most `BLOCK` at once, without the values that are `erased`.

        Each type, each placement and each width of features by itself.
        """
        known = [_without(one, erased) for one in self._dictionaries]
        for of, kind, placement, first, count in self._segments:
            for start in range(first, first + count, BLOCK) if of == day else ():
                stop = min(start + BLOCK, first + count)
                block = self._database.execute(
                    "SELECT * FROM good WHERE rowid >= $1 AND rowid < $2 ORDER BY rowid",
                    [start, stop],
                ).fetchnumpy()
                rows = _coded(kind, placement, block)
                if kind != "impression":
                    yield rows
                    continue
                for places, features in self._packed(block, known, erased):
                    yield rows.with_features(places, features)

    def _packed(
        self, block: dict[str, Any], known: list[Dictionary], erased: Erased
    ) -> Iterator[tuple[Int64s, Voids]]:
        if "features" in self._map.columns:
            return of_one_length([erased.blob(one) if erased else one for one in block["blob"]])
        codes = [np.asarray(block[f"c{i}"], np.int64) for i in range(len(self._features))]
        return packed(known, codes)

    def _open(self, mapping: Path | None) -> None:
        self._database.execute("SET TimeZone = 'UTC'; SET memory_limit = '1GB'; SET threads = 2")
        if not self.path.is_file():
            remedy = "Give the path of a CSV, Parquet or NDJSON file."
            raise LogInvalid("file", str(self.path), "no such file", remedy)
        source, first = _source(self.path)
        given = [str(self.path)]
        described = self._database.execute(f"SELECT * FROM {source} LIMIT 0", given).description  # noqa: S608
        self._map = column_map(mapping, [str(one[0]) for one in described or ()], self.schema)
        stored = [one for one in self._names() if one in {"decided_at", *self._map.columns}]
        texts = {name: f"{self._text(name)} AS {_quoted(name)}" for name in self._names()}
        fields = ", ".join(texts[name] for name in stored)
        # DuckDB numbers the rows of an unordered window in the order in which it reads them. What
        # is temporary goes to disk where memory is short, but takes no time to be compressed.
        self._database.execute(
            f"CREATE TEMP TABLE given AS SELECT *, row_number() OVER () + {first - 1} AS line,"  # noqa: S608
            f" {_TIME} AS time_ms FROM (SELECT {fields} FROM {source})",
            given,
        )
        # What the file lacks is the same in every row, and not stored a million times.
        constant = "".join(f", {texts[one]}" for one in self._names() if one not in stored)
        self._database.execute(f"CREATE TEMP VIEW checked AS SELECT *{constant} FROM given")  # noqa: S608
        self._reject_fields()
        self._encode_features()
        self._keep()

    def _names(self) -> list[str]:
        has_blob = "features" in self._map.columns
        return [*FIELDS, *([] if has_blob else [one.full_name for one in self._features])]

    def _text(self, name: str) -> str:
        """The SQL of one field as text."""
        if name not in self._map.columns:
            return _literal(self._map.defaults.get(name, ""))
        column = _quoted(self._map.columns[name])
        feature = next((one for one in self._features if one.full_name == name), None)
        if feature is not None:  # numbers and lists stay what they are for the encoder
            return column
        return f"coalesce(CAST({column} AS VARCHAR), {_literal(FIELDS[name] or '')})"

    def _reject_fields(self) -> None:
        self._database.execute(
            "CREATE TABLE bad (line BIGINT, field VARCHAR, said VARCHAR, why VARCHAR)"
        )
        told = {name for name, text in self._map.defaults.items() if text != FIELDS.get(name)}
        given = {"decided_at", *self._map.columns, *told}
        for field, (holds, why) in ((one, _CHECKS[one]) for one in _CHECKS if one in given):
            self._database.execute(
                f"INSERT INTO bad SELECT line, '{field}', {_quoted(field)}, '{why}' FROM checked"  # noqa: S608
                f" WHERE ({holds}) IS NOT TRUE"
            )

    def _encode_features(self) -> None:
        """A dictionary of each feature; rows with a value that the schema refuses are rejected."""
        self._dictionaries: list[Dictionary] = []
        if "features" in self._map.columns:
            return
        encoder = Encoder(self.schema)
        for i, feature in enumerate(self._features):
            self._dictionaries.append(self._dictionary(encoder, i, feature))

    def _dictionary(self, encoder: Encoder, i: int, feature: Feature) -> Dictionary:
        name = _quoted(feature.full_name)
        self._database.execute(
            f"CREATE TABLE d{i} AS SELECT CAST(row_number() OVER () - 1 AS INTEGER) AS code, value"  # noqa: S608
            f" FROM (SELECT DISTINCT {name} AS value FROM checked)"
        )
        side = self.schema.user if feature.side == "user" else self.schema.ad
        encode = encoder.encode_user if feature.side == "user" else encoder.encode_ad
        at, hashes = side.index(feature), []
        for code, (raw,) in enumerate(
            self._database.execute(f"SELECT value FROM d{i} ORDER BY code").fetchall()  # noqa: S608
        ):
            value: Any = raw.split("|") if feature.kind == "multi" and isinstance(raw, str) else raw
            try:
                encoded = encode({feature.name: value})
            except FeatureValueInvalid as error:
                self._reject_value(i, code, feature, error)
                encoded = encode({})
            hashes.append(encoded.ids[at : len(encoded.ids) - (len(side) - 1 - at)])
        counts = np.array([len(one) for one in hashes], np.int64)
        return Dictionary(np.concatenate(hashes), np.cumsum(counts) - counts, counts)

    def _reject_value(
        self, i: int, code: int, feature: Feature, error: FeatureValueInvalid
    ) -> None:
        name = feature.full_name
        self._database.execute(
            f"INSERT INTO bad SELECT line, $1, CAST(value AS VARCHAR), $2 FROM checked, d{i}"  # noqa: S608
            f" WHERE code = {code} AND {_quoted(name)} IS NOT DISTINCT FROM value",
            [name, str(error.limit)],
        )

    def _keep(self) -> None:
        """The good rows, with a click beside each impression that was clicked; list the others."""
        found = self._database.execute(
            "SELECT line, field, said, why FROM bad"
            " QUALIFY row_number() OVER (PARTITION BY line) = 1 ORDER BY line"
        ).fetchall()
        self.rejected = [Rejected(int(a), b, (c or "")[:80], d) for a, b, c, d in found]
        coded = range(len(self._dictionaries))
        has_ids = "decision_id" in self._map.columns
        joins = "".join(
            f" LEFT JOIN d{i} ON {_quoted(self._features[i].full_name)} IS NOT DISTINCT FROM"
            f" d{i}.value"
            for i in coded
        )
        codes = "".join(f", d{i}.code AS c{i}" for i in coded)
        columns = _columns(self.path.name, has_ids) + codes
        self._database.execute(
            f"CREATE TEMP TABLE kept AS SELECT {columns} FROM checked{joins}"  # noqa: S608
            " WHERE line NOT IN (SELECT line FROM bad)"
        )
        self._database.execute("DROP VIEW checked; DROP TABLE given")
        # Of two rows of one key one is enough: what is built aside has no key to refuse the other.
        self._database.execute(
            "CREATE TEMP TABLE good AS SELECT * FROM (SELECT * FROM kept UNION ALL"  # noqa: S608
            " SELECT * REPLACE ('click' AS type) FROM kept WHERE clicked AND type = 'impression')"
            f"{_FIRST_OF_KEY if has_ids else ''}"
            " ORDER BY day, type, placement, has_value, time_ms"
        )
        self._database.execute("DROP TABLE kept")
        self._segments = self._database.execute(
            "SELECT day, type, placement, min(rowid), count(*) FROM good"
            " GROUP BY day, type, placement, has_value ORDER BY min(rowid)"
        ).fetchall()


_FIRST_OF_KEY = """
QUALIFY row_number() OVER (PARTITION BY time_ms, decision_high, decision_low, slot, type) = 1
"""

_TIME = """
CASE WHEN regexp_full_match(decided_at, '[0-9]+(\\.0)?') THEN try_cast(decided_at AS BIGINT)
ELSE epoch_ms(try_cast(decided_at AS TIMESTAMPTZ)) END
"""


def _whole(field: str, low: int, high: int) -> str:
    number = f"try_cast({field} AS BIGINT)"
    digits = f"regexp_full_match({field}, '[0-9]+([.]0)?')"  # some tools make every number a float
    return f"{digits} AND {number} BETWEEN {low} AND {high}"


_CHECKS = {
    "decided_at": (
        "time_ms BETWEEN 100000000000 AND 100000000000000",
        "epoch milliseconds or RFC 3339, after 1973",
    ),
    **{
        field: (_whole(field, low, high), f"a whole number from {low} to {high}")
        for field, (low, high) in _WHOLE.items()
    },
    "type": (
        "type IN ('impression', 'click', 'conversion', 'close')",
        "one of impression, click, conversion, close",
    ),
    "clicked": ("try_cast(clicked AS DOUBLE) IN (0, 1)", "0 or 1"),
    "decision_id": (f"decision_id = '' OR regexp_full_match(decision_id, {_UUID})", "a UUID"),
    "snapshot_id": (f"regexp_full_match(snapshot_id, {_UUID})", "a UUID"),
    "propensity": (
        "try_cast(propensity AS DOUBLE) > 0 AND try_cast(propensity AS DOUBLE) <= 1",
        "above 0, at most 1",
    ),
    "placement": ("length(placement) <= 32", "at most 32 characters"),
    "value_micros": (
        f"value_micros = '' OR (type = 'conversion' AND {_whole('value_micros', 0, MAX_ID)})",
        "a whole number, of a conversion alone",
    ),
    "features": (
        "regexp_full_match(features, '([0-9a-f][0-9a-f])*')",
        "the hexadecimal text of an export",
    ),
}


def _columns(name: str, has_ids: bool) -> str:
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    given = "replace(decision_id, '-', '')"
    halves = (f"CAST('{own}' AS UBIGINT)", "CAST(line AS UBIGINT)")
    if has_ids:
        halves = (_half_or(given, 1, halves[0]), _half_or(given, 17, halves[1]))
    return (
        "epoch_ms(time_ms)::DATE AS day, type, placement, time_ms,"
        f" {halves[0]} AS decision_high, {halves[1]} AS decision_low,"
        f" {_half(_SNAPSHOT, 1)} AS snapshot_high, {_half(_SNAPSHOT, 17)} AS snapshot_low,"
        " slot::SMALLINT AS slot, ad_id::BIGINT AS ad_id,"
        " catalog_version::BIGINT AS catalog_version, price_micros::BIGINT AS price_micros,"
        " propensity::DOUBLE AS propensity,"
        " coalesce(try_cast(nullif(value_micros, '') AS BIGINT), 0) AS value,"
        " value_micros <> '' AS has_value, clicked::DOUBLE = 1 AS clicked, unhex(features) AS blob"
    )


def _half_or(digits: str, start: int, own: str) -> str:
    """Half of the id that is given, or of the row's own where none is."""
    return f"CASE WHEN {digits} = '' THEN {own} ELSE {_half(digits, start)} END"


_SNAPSHOT = "replace(snapshot_id, '-', '')"


def _half(digits: str, start: int) -> str:
    """Sixteen of the digits of an id as a number."""
    return f"CAST('0x' || substr({digits}, {start}, 16) AS UBIGINT)"


def _source(path: Path) -> tuple[str, int]:
    """How DuckDB reads a file, and the line of its first row."""
    if path.suffix == ".parquet":
        return "read_parquet($1)", 1
    if path.suffix in (".ndjson", ".jsonl"):
        return "read_json($1, format = 'newline_delimited')", 1
    return "read_csv($1, header = true, all_varchar = true, delim = ',', quote = '\"')", 2


def _coded(kind: str, placement: str, block: dict[str, Any]) -> Rows:
    """Events of one type and placement, without features."""
    return Rows(
        kind=kind,
        placement=placement,
        time_ms=np.asarray(block["time_ms"], np.int64),
        decision=_sixteen(block["decision_high"], block["decision_low"]),
        slot=np.asarray(block["slot"], np.int64),
        ad_id=np.asarray(block["ad_id"], np.int64),
        snapshot=_sixteen(block["snapshot_high"], block["snapshot_low"]),
        catalog_version=np.asarray(block["catalog_version"], np.int64),
        price_micros=np.asarray(block["price_micros"], np.int64),
        propensity=np.asarray(block["propensity"], np.float64),
        value_micros=np.asarray(block["value"], np.int64),
        has_value=bool(block["has_value"][0]),
    )


def _without(known: Dictionary, erased: Erased) -> Dictionary:
    """The dictionary without erased values, each of which is missing instead."""
    ptr = np.append(known.starts, len(known.ids))
    left = erased.rows(Ragged(known.ids, ptr, 1))
    return Dictionary(left.ids, left.ptr[:-1], np.diff(left.ptr))


def _sixteen(high: Any, low: Any) -> npt.NDArray[np.void]:
    """Ids of 16 bytes from their halves."""
    halves = np.column_stack((np.asarray(high, np.uint64), np.asarray(low, np.uint64)))
    return halves.astype(">u8").view("V16")[:, 0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
