"""Which column of a file is which column of the events: a TOML file, or the same names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import LogInvalid
from models.schema import Schema

FIELDS = {
    "decided_at": None,
    "ad_id": None,
    "type": "impression",
    "clicked": "0",
    "decision_id": "",
    "slot": "0",
    "snapshot_id": "00000000-0000-0000-0000-000000000000",
    "catalog_version": "0",
    "price_micros": "0",
    "propensity": "1",
    "placement": "",
    "value_micros": "",
    "features": "",
}
"""What an event has, each with what stands for it where a file has no such column; None: needed."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """`columns`: the file's column of a field or feature; `defaults`: the text of one it lacks."""

    columns: Mapping[str, str]
    defaults: Mapping[str, str]


def column_map(path: Path | None, present: Sequence[str], schema: Schema) -> ColumnMap:
    """The mapping of a file with these columns. Without `path` they have the fields' own names.

    The TOML file has a table `columns` (field = "column") and may have one of `defaults` (field =
    "text"). Features are named `user.x` and `ad.x`. Raises `LogInvalid`.
    """
    given = {} if path is None else _read(path)
    features = [one.full_name for one in schema.user + schema.ad]
    known = (*FIELDS, *features)
    columns, defaults = given.get("columns", {}), given.get("defaults", {})
    for name in (*columns, *defaults):
        if name not in known:
            raise _wrong(path, name, f"no such field; there are {', '.join(known)}")
    found = {name: columns.get(name, name) for name in known}
    for name, column in columns.items():
        if column not in present:
            raise _wrong(path, f"{name} = {column}", f"the file has {', '.join(present)}")
    missing = {name: FIELDS.get(name, "") for name in known if found[name] not in present}
    texts = {name: str(defaults.get(name, text)) for name, text in missing.items() if text != name}
    for name in missing:
        if FIELDS.get(name, "") is None and name not in defaults:
            raise _wrong(path, name, f"no column is given for it; there are {', '.join(present)}")
    return ColumnMap({k: v for k, v in found.items() if k not in missing}, texts)


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        given: dict[str, dict[str, str]] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, str(path), f"it cannot be read: {error}") from error
    for name, table in given.items():
        if name not in ("columns", "defaults") or not isinstance(table, dict):
            raise _wrong(path, name, "there are the tables columns and defaults")
    return given


def _wrong(path: Path | None, value: str, limit: str) -> LogInvalid:
    remedy = "Name the file's column with --mapping, or rename it."
    return LogInvalid("columns" if path is None else path.name, value, limit, remedy)
