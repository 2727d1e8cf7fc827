"""`adscent events`: files of events into the database and out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from app.commands.session import with_database
from app.settings import Settings
from app.storage import audit, partitions
from app.storage.engine import Database
from jobs.transfer import importing
from jobs.transfer.exporting import export_events
from jobs.transfer.importing import Imported
from models.schema import load_schema

LEDGERS = "imports"
"""The folder below the home in which it is noted how far each import has come."""
_SHOWN = 5


def take(
    settings: Settings,
    files: Sequence[Path],
    mapping: Path | None,
    *,
    dry_run: bool,
    told: Callable[[Path, int, int], None],
) -> list[tuple[Path, Imported]]:
    """Import files, each from where an earlier run was cut; with `dry_run` only check them.

    `told` is called with the file, its events done and all of them.
    """
    schema, ledgers = load_schema(settings.features), settings.home / LEDGERS
    oldest = _oldest(settings)
    if dry_run:
        return [(file, importing.check_file(file, schema, mapping, oldest)) for file in files]

    async def each(database: Database) -> list[tuple[Path, Imported]]:
        done = []
        for file in files:
            found = await importing.import_file(
                *(database, file, schema, ledgers, mapping), partial(told, file), oldest
            )
            await _audit(database, file, found)
            done.append((file, found))
        return done

    return with_database(settings, each)


def _oldest(settings: Settings) -> date:
    """The first day that retention keeps by now, as the jobs reckon it."""
    today = partitions.day_of(time.time_ns() // 1_000_000)
    return today - timedelta(days=settings.event_retention_days)


async def _audit(database: Database, file: Path, found: Imported) -> None:
    """Note what was imported: it is trained on like what was served."""
    after = {"file": file.name, "written": found.written, "rejected": len(found.rejected)}
    async with database.begin() as connection:
        await audit.write(connection, "cli", "import", "events", after=after)


def summary(
    done: Sequence[tuple[Path, Imported]], *, dry_run: bool, rejected: Path | None
) -> list[str]:
    """What became of each file, and its first faults; all of them go to the file `rejected`."""
    lines = []
    verb = "would be written" if dry_run else "written"
    for file, found in done:
        lines.append(
            f"{file}: {found.written} events {verb}, {found.duplicate} there before,"
            f" {found.skipped} skipped, {len(found.rejected)} rows rejected"
        )
        unit = "row" if file.suffix == ".parquet" else "line"
        lines += [
            f"  {unit} {one.line}, {one.field}: {one.value!r} is not {one.reason}"
            for one in found.rejected[:_SHOWN]
        ]
        lines += _warnings(found, verb)
    if rejected is not None:
        faults = [(file, one) for file, found in done for one in found.rejected]
        importing.write_rejected(faults, rejected)
    return lines


def _warnings(found: Imported, verb: str) -> list[str]:
    lines = []
    if found.torn is not None:
        lines.append(
            f"  {found.torn} could not be read and counted as none: days that were done are"
            " gone through again, and their events are there before"
        )
    if found.old:
        lines.append(
            f"  {found.old} events {verb} are from before {found.oldest}: they are counted and"
            " trained, then dropped (ADSCENT_EVENT_RETENTION_DAYS); were they here before they"
            " were dropped, they count twice"
        )
    return lines


def export(settings: Settings, path: Path, since: date, until: date) -> int:
    """Write the events of some days to a file; how many there were."""
    return with_database(settings, lambda database: export_events(database, path, since, until))
