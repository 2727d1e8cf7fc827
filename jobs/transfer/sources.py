"""How DuckDB reads a file of events, what in it is no row at all, and in which line a row begins.

DuckDB refuses a whole file for one row that it cannot take apart. Only such a file is taken apart
here, once: what is no row is rejected with its line, and the rows go into a copy for DuckDB.
"""

from __future__ import annotations

import csv
import gzip
import json
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import duckdb
import numpy as np

from models.errors import LogInvalid
from models.types import Int64s

_LONGEST = 1 << 24
"""Bytes of one line of NDJSON, as DuckDB takes them."""
_SHOWN = 80
_CSV = (
    "read_csv($1, auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"',"
    " columns = $2)"
)
_JSON = (
    "read_json($1, format = 'newline_delimited', records = true, columns = $2,"
    f" maximum_object_size = {_LONGEST})"
)
# Every line is looked at: a key that first comes late in the file is a column too.
_KEYS = f"""
SELECT DISTINCT ON (lower(key)) key FROM (
    SELECT DISTINCT unnest(json_keys(json)) AS key
    FROM read_ndjson_objects($1, ignore_errors = true, maximum_object_size = {_LONGEST})
    WHERE json_type(json) = 'OBJECT'
) ORDER BY lower(key), key
"""  # noqa: S608 - a number of ours


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not imported: its line, the field at fault, what it says and what is wrong.

    A Parquet file has no lines: there it is the number of the row, from 1.
    """

    line: int
    field: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A file as DuckDB reads it: `query` with the parameters `given`; its columns' names.

    `refused`: what was no row of the file. `lines`: in which line each row begins; None where that
    is not known yet.
    """

    path: Path
    query: str
    given: list[Any]
    columns: list[str]
    refused: tuple[Rejected, ...] = ()
    lines: Int64s | None = None

    @property
    def is_json(self) -> bool:
        """Whether values are the text of JSON."""
        return _is_json(self.path)

    @property
    def is_text(self) -> bool:
        """Whether it has lines."""
        return self.path.suffix != ".parquet"

    def lines_of(self, rows: int) -> Int64s:
        """The lines in which the first `rows` rows begin, int64 [rows]."""
        if self.lines is not None:
            return self.lines[:rows]
        if not self.is_text:
            return np.arange(1, rows + 1)
        return np.fromiter(islice(_first_lines(self.path), rows), np.int64)

    def mended(self, folder: Path) -> Source:
        """The same without what is no row of it, from a copy in `folder`.

        Raises `OSError`, `EOFError` for a file that ends within its compression.
        """
        copy, lines, refused = folder / "mended", array("q"), list[Rejected]()
        with copy.open("w", encoding="utf-8", newline="") as target:
            for line, text, wrong in _taken_apart(self.path, self.columns):
                if wrong:
                    refused.append(Rejected(line, "row", text, wrong))
                else:
                    target.write(text)
                    lines.append(line)
        held = np.array(lines[0 if self.is_json else 1 :], np.int64)
        given = [str(copy), *self.given[1:]]
        return replace(self, given=given, refused=tuple(refused), lines=held)


def source(database: duckdb.DuckDBPyConnection, path: Path) -> Source:
    """How to read this file. Raises `LogInvalid`, `duckdb.Error`, `OSError`, `EOFError`."""
    if _is_json(path):
        names = [str(one[0]) for one in database.execute(_KEYS, [str(path)]).fetchall()]
        return Source(path, _JSON, _as(path, names, "JSON"), names)
    if path.suffix == ".parquet":
        query = "read_parquet($1)"
        return Source(path, query, [str(path)], _columns(database, query, path))
    names = _header(path)
    return Source(path, _CSV, _as(path, names, "VARCHAR"), names)


def _as(path: Path, names: list[str], kind: str) -> list[Any]:
    return [str(path), dict.fromkeys(names, kind)]


def _columns(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> list[str]:
    found = database.execute(f"SELECT * FROM {query} LIMIT 0", [str(path)])  # noqa: S608 - ours
    return [str(one[0]) for one in found.description or ()]


def _is_json(path: Path) -> bool:
    return path.suffix in (".ndjson", ".jsonl")


def _header(path: Path) -> list[str]:
    names = next((row for _, row, _ in _records(path)), [])
    alike = [name.lower() for name in names]
    twice = [name for name in names if alike.count(name.lower()) > 1]
    if not names or twice:
        limit = f"two columns of its header are {twice[0]}" if twice else "it has no header"
        raise LogInvalid(path.name, str(path), limit, "Give a CSV whose first line names columns.")
    return names


def _first_lines(path: Path) -> Iterator[int]:
    if _is_json(path):
        return (line for line, _ in _json_lines(path))
    return (line for line, _, _ in islice(_records(path), 1, None))


def _taken_apart(path: Path, columns: list[str]) -> Iterator[tuple[int, str, str]]:
    """Each row (of CSV the header too) with its line, its text, and what is wrong, if anything."""
    if _is_json(path):
        for line, raw in _json_lines(path):
            text = _object(raw)
            shown = raw[:_SHOWN].decode(errors="replace").strip()
            yield (line, text, "") if text else (line, shown, "one JSON object")
        return
    for line, row, wrong in _records(path):
        wrong = wrong or _misfit(row, len(columns))
        yield line, _shown(row) if wrong else _joined(row), wrong


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        yield from ((line, raw) for line, raw in enumerate(file, 1) if raw.strip())


def _object(raw: bytes) -> str:
    """The object of a line as DuckDB takes it, each key once; nothing if it is none."""
    try:
        found = json.loads(raw.decode("utf-8-sig")) if len(raw) < _LONGEST else None
        text = json.dumps(found, ensure_ascii=False) + "\n"
        text.encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return ""
    return text if isinstance(found, dict) else ""


class _Lines:
    """A file's lines one by one, those of a record that is none to be had again."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._again = file, deque[str]()
        self.taken, self.held = 0, list[str]()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.taken += 1
        self.held.append(line)
        return line

    def go_back(self) -> None:
        """Give all lines but the first of those held once more."""
        again = self.held[1:]
        self._again.extendleft(reversed(again))
        self.taken -= len(again)


def _records(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Each record that is not blank: its first line, its fields, what is wrong, if anything.

    A quote without its end costs the line in which it is, not all that follow.
    """
    with _opened(path) as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        while True:
            lines.held.clear()
            first = lines.taken + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield first, lines.held[:1], f"a row with its quotes in order ({error})"
                lines.go_back()
                continue
            if len(row) > 1 or (row and row[0].strip()):
                yield first, row, ""


def _misfit(row: list[str], width: int) -> str:
    if len(row) != width:
        return f"a row of {width} fields, as in the header: it has {len(row)}"
    return "" if _is_unicode("".join(row)) else "valid UTF-8"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _joined(row: list[str]) -> str:
    quoted = ('"' + one.replace('"', '""') + '"' if one else "" for one in row)
    return ",".join(quoted) + "\n"


def _shown(row: list[str]) -> str:
    return ",".join(row)[:_SHOWN].encode(errors="replace").decode().strip()


def _opened(path: Path) -> TextIO:
    # What is no UTF-8 is kept as it is until its row is looked at.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
