"""`adscent events`: files of events into the database and out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

from app.commands.session import with_database
from app.settings import Settings
from app.storage import audit
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
    if dry_run:
        return [(file, importing.check_file(file, schema, mapping)) for file in files]

    async def each(database: Database) -> list[tuple[Path, Imported]]:
        done = []
        for file in files:
            found = await importing.import_file(
                *(database, file, schema, ledgers, mapping), partial(told, file)
            )
            await _audit(database, file, found)
            done.append((file, found))
        return done

    return with_database(settings, each)


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
        lines += [
            f"  line {one.line}, {one.field}: {one.value!r} is not {one.reason}"
            for one in found.rejected[:_SHOWN]
        ]
    if rejected is not None:
        faults = [(file, one) for file, found in done for one in found.rejected]
        importing.write_rejected(faults, rejected)
    return lines


def export(settings: Settings, path: Path, since: date, until: date) -> int:
    """Write the events of some days to a file; how many there were."""
    return with_database(settings, lambda database: export_events(database, path, since, until))
