"""`adscent events export`: stored events into a file that `adscent events import` takes back."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path

import duckdb

from app.storage.engine import Database
from app.storage.event_export import copy_out
from models.errors import LogInvalid

_FORMATS = {".csv": "", ".parquet": "parquet", ".ndjson": "json", ".jsonl": "json"}


async def export_events(
    database: Database,
    path: Path,
    since: date = date.min,
    until: date = date.max - timedelta(days=1),
) -> int:
    """Write the events decided from `since` to `until`, both days included; how many there were.

    Quarantined ones are left out. CSV streams; other formats are made from a temporary CSV. Raises
    `LogInvalid` for a file name that says no format, `DatabaseUnavailable`.
    """
    if path.suffix not in _FORMATS:
        limit = f"its name must end in one of {', '.join(_FORMATS)}"
        raise LogInvalid("file", path.name, limit, "Rename it.")
    if not _FORMATS[path.suffix]:
        return await copy_out(database, path, since, until)
    with tempfile.TemporaryDirectory(prefix="adscent-export-") as folder:
        lines = Path(folder) / "events.csv"
        count = await copy_out(database, lines, since, until)
        _convert(lines, path)
    return count


def _convert(lines: Path, path: Path) -> None:
    with duckdb.connect() as database:
        database.execute("SET memory_limit = '1GB'; SET threads = 2")
        database.execute(
            "CREATE VIEW events AS SELECT * FROM"  # noqa: S608 - quoted below
            f" read_csv('{_escaped(lines)}', header = true, all_varchar = true)"
        )
        kind = _FORMATS[path.suffix]
        database.execute(f"COPY events TO '{_escaped(path)}' (FORMAT {kind})")


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")
