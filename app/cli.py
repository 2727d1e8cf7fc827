"""The command line: parses, calls and prints. What a command does is in `app.commands` and `jobs`.

Commands are imported when called, so that `--help` is quick and OMP_NUM_THREADS is set before
FAISS reads it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from app import settings
from app.commands.errors import CommandError
from app.database_url import DatabaseMissing
from app.measuring import bench, lab
from app.options import Features, Html, Report, Seed, checked, group
from app.settings import SettingInvalid, Settings
from app.storage.errors import StorageError
from models.errors import ModelError

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 30)
_UNCUT = 4096
"""Wider than any line: rows are for other programs too, and a terminal wraps them by itself."""

_KNOWN = (SettingInvalid, DatabaseMissing, CommandError, StorageError, ModelError, OSError)


class _Scope(StrEnum):
    """What an API key is good for."""

    SCORE = "score"
    INGEST = "ingest"
    ADMIN = "admin"


app = group(
    "A self-hosted ad server whose click model learns from every few minutes of traffic.\n\n"
    "Settings come from the environment: `ADSCENT_HOME`, `ADSCENT_PORT`, … and `DATABASE_URL`;"
    " without `DATABASE_URL` the database of `adscent db` is used.",
    no_args_is_help=True,
)
_db = group(
    "Run the embedded PostgreSQL in the foreground, migrated, until Ctrl-C; or migrate one.\n\n"
    "Its data is below `ADSCENT_HOME` (as root: below /var/lib/adscent).\n\n"
    "Examples: `adscent db` · `DATABASE_URL=postgresql://… adscent db migrate`",
    invoke_without_command=True,
)
_keys = group("Make, list and revoke API keys; rotate the key of the tokens.", no_args_is_help=True)
_ads = group("Load ads, campaigns and advertisers.", no_args_is_help=True)
_events = group("Import and export events.", no_args_is_help=True)
app.add_typer(_db, name="db")
app.add_typer(_keys, name="keys")
app.add_typer(_ads, name="ads")
app.add_typer(_events, name="events")
app.add_typer(bench, name="bench")
app.add_typer(lab, name="lab")


def main() -> None:
    """Run the command of `sys.argv`; known errors are one message on standard error."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app(prog_name="adscent")  # not the file of app.cli, when run by `python -m`
    except _KNOWN as error:
        message = f"error: {error}"
        Console(stderr=True).print(
            message, style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)


def _settings(**given: Any) -> Settings:
    """The settings of the environment, options of the command line on top."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(settings.from_environment(), **chosen)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    features: Features = None,
) -> None:
    """Serve the HTTP API.

    Prometheus metrics of all workers are on an address of their own, 127.0.0.1:9090 by default.

    Examples: `adscent serve` · `adscent serve --workers 2 --port 8080`
    """
    from app.commands import serve as command

    command.run(
        _settings(
            host=host, port=port, workers=workers, metrics_port=metrics_port, features=features
        )
    )


@app.command()
def jobs(features: Features = None) -> None:
    """Retrain, keep the events' partitions, drop what is old. One leader at a time does the work.

    Examples: `adscent jobs` · `ADSCENT_RETRAIN_EVERY_S=60 adscent jobs`
    """
    from app import logs
    from jobs.__main__ import run

    chosen = _settings(features=features)
    logs.configure(chosen.log_level)
    asyncio.run(run(chosen))


@_db.callback()
def db(context: typer.Context) -> None:
    """Run the embedded PostgreSQL unless a command of the group was named."""
    if context.invoked_subcommand is None:
        from app.commands import db as command

        command.run(_settings(), print)


@_db.command("migrate")
def migrate() -> None:
    """Bring the database of DATABASE_URL (or the embedded one) to this version's tables.

    Example: `adscent db migrate`
    """
    from app.commands import db as command

    command.upgrade(_settings())
    print("the database is up to date")


@_keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the audit.")],
    scope: Annotated[list[_Scope], typer.Option(help="What it is good for; may be repeated.")],
) -> None:
    """Make an API key. Its secret is shown once and stored only as a hash.

    Example: `adscent keys create website --scope score --scope ingest`
    """
    from app.commands import keys as command

    key_id, secret = command.create(_settings(), name, [one.value for one in scope])
    print(f"id      {key_id}\nsecret  {secret}\nThe secret is not shown again.")


@_keys.command("list")
def list_keys() -> None:
    """List all API keys.

    Example: `adscent keys list`
    """
    from app.commands import keys as command

    columns = ("id", "state", "name", "scopes", "created")
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for key in command.listed(_settings()):
        state, created = command.state(key), command.moment(key.created_ms)
        table.add_row(str(key.id), state, key.name, ", ".join(key.scopes), created)
    Console(width=_UNCUT).print(table)


@_keys.command("revoke")
def revoke_key(key_id: Annotated[UUID, typer.Argument(help="The id, see `keys list`.")]) -> None:
    """Revoke an API key; within seconds no worker takes it any more.

    Example: `adscent keys revoke 019ab…`
    """
    from app.commands import keys as command

    command.revoke(_settings(), key_id)
    print(f"{key_id} is revoked")


@_keys.command("rotate-token")
def rotate_token_key() -> None:
    """Seal tokens with a new key from the next minute on; no token given out before is lost.

    Old keys open tokens as long as an event can be stored with them, then the jobs drop them.
    Rotate before four thousand million tokens, or when a key may have been seen.

    Example: `adscent keys rotate-token`
    """
    from app.commands import keys as command

    print(f"token key {command.rotate_token(_settings())} seals from the next minute on")


@_ads.command("import")
def import_ads(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE.ndjson")],
    features: Features = None,
) -> None:
    """Import a file, a JSON object a line: an ad, {"campaign": {…}} or {"advertiser": {…}}.

    Everything is checked before anything is written; errors name the line.

    Example: `adscent ads import catalog.ndjson`
    """
    from app.commands import ads as command

    read = command.import_file(_settings(features=features), file)
    print(
        f"{len(read.ads)} ads, {len(read.campaigns)} campaigns,"
        f" {len(read.advertisers)} advertisers imported"
    )


@_events.command("import")
def import_events(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, metavar="FILE...")],
    mapping: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="TOML: which column is which field."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything, write nothing.")] = False,
    rejected: Annotated[
        Path | None, typer.Option(help="Write the rows that do not fit to this CSV file.")
    ] = None,
    features: Features = None,
) -> None:
    """Import files of events: CSV (also .gz), Parquet, NDJSON. Faulty rows are left out, by line.

    A row is an impression with `clicked`, or an event of a `type`; needed are `decided_at` and
    `ad_id`. Run again after an interruption, it goes on with the first unfinished day.

    Examples: `adscent events import log.parquet` ·
    `adscent events import a.csv b.csv --mapping mapping.toml --rejected bad.csv --dry-run`
    """
    from rich.progress import Progress

    from app.commands import events as command

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("events", total=None)
        done = command.take(
            _settings(features=features),
            files,
            mapping,
            dry_run=dry_run,
            told=lambda file, count, total: progress.update(
                bar, description=file.name, completed=count, total=total
            ),
        )
    for line in command.summary(done, dry_run=dry_run, rejected=rejected):
        print(line)


@_events.command("export")
def export_events(
    file: Annotated[Path, typer.Argument(metavar="FILE", callback=checked)],
    since: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="First UTC day.")] = _FIRST,
    until: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="Last UTC day.")] = _LAST,
) -> None:
    """Export events to CSV, Parquet or NDJSON, as `events import` takes them.

    Quarantined events are left out.

    Example: `adscent events export today.parquet --since 2026-11-22`
    """
    from app.commands import events as command

    count = command.export(_settings(), file, since.date(), until.date())
    print(f"{count} events exported to {file}")


@app.command()
def replay(
    log: Annotated[Path, typer.Argument(exists=True, help="CSV (also .gz) or Parquet.")],
    features: Annotated[Path, typer.Option(help="The feature schema.")] = Path("features.toml"),
    label: Annotated[str, typer.Option(help="The 0/1 column to predict.")] = "clicked",
    chunk: Annotated[str, typer.Option(help="Length of a training chunk: 15m, 1h, 1d.")] = "1h",
    report: Report = None,
    html: Html = None,
    seed: Seed = 1,
) -> None:
    """Learn from a log as production would, each chunk scored before it is learned.

    Example: `adscent replay events.csv.gz --features features.toml --chunk 1h --report r.json`
    """
    from jobs.replay.run import run

    raise typer.Exit(run(log, features, label, chunk, report, html, seed))


@app.command()
def demo(
    exit_after: Annotated[
        float | None, typer.Option(min=1, help="Stop after this many seconds; 90 if not given.")
    ] = None,
    seed: Seed = 1,
    report: Report = None,
) -> None:
    """Run everything with a seeded market that sends real HTTP traffic.

    Examples: `adscent demo` · `adscent demo --exit-after 90 --seed 7 --report demo.json`
    """
    from jobs.demo.run import run

    raise typer.Exit(run(exit_after, seed, report))


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the test suite, real PostgreSQL included; arguments go to pytest.

    Examples: `adscent test` · `adscent test tests/unit -k encoder`
    """
    from app.commands import suite

    raise typer.Exit(suite.run(context.args))


if __name__ == "__main__":
    main()
