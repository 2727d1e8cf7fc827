"""A file of events (CSV, Parquet, NDJSON): read and checked by DuckDB, coded for a binary COPY.

DuckDB keeps the file in a temporary database on disk; each distinct value of a feature goes once
through the encoder that requests go through. Rows that do not fit are reported with their line
(`jobs.transfer.sources`).
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from datetime import date
from functools import reduce
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from jobs.logfile import Dictionary
from jobs.scratch import Scratch
from jobs.transfer.copy_rows import Rows, Voids, of_one_length, packed
from jobs.transfer.mapping import FIELDS, column_map
from jobs.transfer.row_sql import CHECKS, FIRST_OF_KEY, IDENTIFIED, NUMBERED, REPEATS, TIME, columns
from jobs.transfer.sources import Rejected, source
from models.erasure import NOTHING, Erased
from models.errors import FeatureValueInvalid, LogInvalid
from models.features import Encoder, Feature, Schema, unpack
from models.types import Int64s, Ragged

BLOCK = 200_000
"""Rows that are coded at once."""


class EventFile(Scratch):
    """An opened file. Use it with `with`. Raises `LogInvalid` for one that cannot be read at all.

    `clicked` = 1 makes a click beside the impression. A row without `decision_id` gets one from
    what it holds and how many rows before it hold the same, so that importing it again, from
    wherever, changes nothing.
    """

    def __init__(self, path: Path, schema: Schema, mapping: Path | None = None) -> None:
        self.path, self.schema = path, schema
        self._features = schema.user + schema.ad
        super().__init__("import")
        self.rejected: list[Rejected] = []
        try:
            self._open(mapping)
        except (duckdb.Error, OSError, EOFError, zlib.error) as error:
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
        self._source = source(self._database, self.path)
        self._map = column_map(mapping, self._source.columns, self.schema)
        self._read()
        self._reject_fields()
        self._encode_features()
        self._keep()

    def _read(self) -> None:
        """The rows as the file has them; what is no row of it is left out and listed."""
        try:
            self._fill()
        except duckdb.Error:
            if not self._source.is_text:
                raise
            self._source = self._source.mended(Path(self._folder.name))
            self._fill()

    def _fill(self) -> None:
        stored = [one for one in self._names() if one in {"decided_at", *self._map.columns}]
        texts = {name: f"{self._text(name)} AS {_quoted(name)}" for name in self._names()}
        fields = ", ".join(texts[name] for name in stored)
        # DuckDB numbers the rows of an unordered window in the order in which it reads them. What
        # is temporary goes to disk where memory is short, but takes no time to be compressed.
        self._database.execute(
            "CREATE TEMP TABLE given AS SELECT *, row_number() OVER () AS line,"  # noqa: S608
            f" {TIME} AS time_ms FROM (SELECT {fields} FROM {self._source.query})",
            self._source.given,
        )
        # What the file lacks is the same in every row, and not stored a million times.
        constant = "".join(f", {texts[one]}" for one in self._names() if one not in stored)
        self._database.execute(f"CREATE TEMP VIEW checked AS SELECT *{constant} FROM given")  # noqa: S608

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
        text = f"{column} ->> '$'" if self._source.is_json else f"CAST({column} AS VARCHAR)"
        return f"coalesce({text}, {_literal(FIELDS[name] or '')})"

    def _reject_fields(self) -> None:
        self._database.execute(
            "CREATE TABLE bad (line BIGINT, field VARCHAR, said VARCHAR, why VARCHAR)"
        )
        told = {name for name, text in self._map.defaults.items() if text != FIELDS.get(name)}
        given = {"decided_at", *self._map.columns, *told}
        for field, (holds, why) in ((one, CHECKS[one]) for one in CHECKS if one in given):
            self._database.execute(
                f"INSERT INTO bad SELECT line, '{field}', {_quoted(field)}, '{why}' FROM checked"  # noqa: S608
                f" WHERE ({holds}) IS NOT TRUE"
            )

    def _encode_features(self) -> None:
        """A dictionary of each feature; rows with a value that the schema refuses are rejected."""
        self._dictionaries: list[Dictionary] = []
        if "features" in self._map.columns:
            self._reject_packed()
            return
        encoder = Encoder(self.schema)
        for i, feature in enumerate(self._features):
            self._dictionaries.append(self._dictionary(encoder, i, feature))

    def _reject_packed(self) -> None:
        """Impressions with features that the schema in force would not be able to take apart."""
        width = len(self._features)
        head = f"substr(features, 1, {2 * width}) AS head, length(features) AS digits"
        shapes = self._database.execute(
            f"SELECT DISTINCT {head} FROM checked WHERE type = 'impression'"  # noqa: S608
        ).fetchall()
        self._database.execute("CREATE TEMP TABLE misfit (head VARCHAR, digits BIGINT)")
        misfits = [one for one in shapes if not self._fits(*one)]
        if misfits:
            self._database.executemany("INSERT INTO misfit VALUES ($1, $2)", misfits)
        self._database.execute(
            "INSERT INTO bad SELECT line, 'features', features, 'packed under the present schema'"  # noqa: S608
            f" FROM (SELECT line, type, features, {head} FROM checked) JOIN misfit"
            " USING (head, digits) WHERE type = 'impression'"
        )

    def _fits(self, head: str, digits: int) -> bool:
        """Whether features that begin so and have so many digits are packed under the schema."""
        if digits % 2 or not re.fullmatch("[0-9a-f]*", head):
            return False
        counts = bytes.fromhex(head)
        try:
            unpack(self.schema, [counts + bytes(digits // 2 - len(counts))])
        except FeatureValueInvalid:
            return False
        return True

    def _dictionary(self, encoder: Encoder, i: int, feature: Feature) -> Dictionary:
        name = _quoted(feature.full_name)
        self._database.execute(
            f"CREATE TABLE v{i} AS SELECT CAST(row_number() OVER () - 1 AS INTEGER) AS code, value"  # noqa: S608
            f" FROM (SELECT DISTINCT {name} AS value FROM checked)"
        )
        side = self.schema.user if feature.side == "user" else self.schema.ad
        encode = encoder.encode_user if feature.side == "user" else encoder.encode_ad
        at, hashes = side.index(feature), list[Int64s]()
        for code, (raw,) in enumerate(
            self._database.execute(f"SELECT value FROM v{i} ORDER BY code").fetchall()  # noqa: S608
        ):
            try:
                encoded = encode({feature.name: self._value(feature, raw)})
            except FeatureValueInvalid as error:
                self._reject_value(i, code, feature, error)
                encoded = encode({})
            hashes.append(encoded.ids[at : len(encoded.ids) - (len(side) - 1 - at)])
        counts = np.array([len(one) for one in hashes], np.int64)
        ids = np.concatenate([np.zeros(0, np.int64), *hashes])
        made = Dictionary(ids, np.cumsum(counts) - counts, counts)
        self._mark(i, made)
        return made

    def _value(self, feature: Feature, raw: Any) -> Any:
        if self._source.is_json and raw is not None and feature.full_name in self._map.columns:
            raw = json.loads(raw)
        return raw.split("|") if feature.kind == "multi" and isinstance(raw, str) else raw

    def _mark(self, i: int, known: Dictionary) -> None:
        """Give each value a number that stands for it in any file: its hashes, joined by xor."""
        marks = np.bitwise_xor.reduceat(known.ids, known.starts) if len(known.ids) else known.ids
        self._database.register("marks", {"code": np.arange(len(marks)), "mark": marks})
        self._database.execute(
            f"CREATE TABLE d{i} AS SELECT v{i}.code, value, mark FROM v{i} JOIN marks USING (code)"  # noqa: S608
        )
        self._database.unregister("marks")

    def _reject_value(
        self, i: int, code: int, feature: Feature, error: FeatureValueInvalid
    ) -> None:
        name = feature.full_name
        self._database.execute(
            f"INSERT INTO bad SELECT line, $1, CAST(value AS VARCHAR), $2 FROM checked, v{i}"  # noqa: S608
            f" WHERE code = {code} AND {_quoted(name)} IS NOT DISTINCT FROM value",
            [name, str(error.limit)],
        )

    def _keep(self) -> None:
        """The good rows, with a click beside each impression that was clicked; list the others."""
        self.rejected = self._faults()
        coded = range(len(self._dictionaries))
        joins = "".join(
            f" LEFT JOIN d{i} ON {_quoted(self._features[i].full_name)} IS NOT DISTINCT FROM"
            f" d{i}.value"
            for i in coded
        )
        codes = "".join(f", d{i}.code AS c{i}" for i in coded)
        mark = reduce(lambda marks, i: f"xor({marks}, d{i}.mark)", coded, "0::BIGINT")
        self._database.execute(
            f"CREATE TEMP TABLE kept AS SELECT {columns(mark if coded else 'features')}{codes}"  # noqa: S608
            f" FROM checked{joins} WHERE line NOT IN (SELECT line FROM bad)"
        )
        self._database.execute("DROP VIEW checked; DROP TABLE given")
        self._database.execute(REPEATS)
        self._database.execute(NUMBERED)
        # Of two rows of one key one is enough: what is built aside has no key to refuse the other.
        first = FIRST_OF_KEY if "decision_id" in self._map.columns else ""
        self._database.execute(
            f"CREATE TEMP TABLE good AS WITH known AS ({IDENTIFIED})"  # noqa: S608
            " SELECT * FROM (FROM known UNION ALL SELECT * REPLACE ('click' AS type) FROM known"
            f" WHERE clicked AND type = 'impression'){first}"
            " ORDER BY day, type, placement, has_value, time_ms"
        )
        self._database.execute("DROP TABLE kept")
        self._list_segments()

    def _faults(self) -> list[Rejected]:
        """What is rejected, in the file's order: the first fault of each row, with its line."""
        found = self._database.execute(
            "SELECT line, field, said, why FROM bad"
            " QUALIFY row_number() OVER (PARTITION BY line) = 1 ORDER BY line"
        ).fetchall()
        lines = self._source.lines_of(found[-1][0] if found else 0)
        faults = [Rejected(int(lines[a - 1]), b, (c or "")[:80], d) for a, b, c, d in found]
        return sorted([*self._source.refused, *faults], key=lambda one: one.line)

    def _list_segments(self) -> None:
        self._segments = self._database.execute(
            "SELECT day, type, placement, min(rowid), count(*) FROM good"
            " GROUP BY day, type, placement, has_value ORDER BY min(rowid)"
        ).fetchall()


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
