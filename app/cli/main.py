"""The command line: parses, calls and prints. What a command does is in `app.commands` and `jobs`.

Commands are imported when called, so that `--help` is quick and OMP_NUM_THREADS is set before
FAISS reads it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app import settings
from app.cli.keys import keys
from app.cli.measuring import bench, lab
from app.cli.operating import config, doctor, status, workers
from app.cli.options import Features, Html, Report, Seed, checked, group
from app.cli.reports import reports
from app.cli.users import users
from app.commands.errors import CommandError
from app.database_url import DatabaseMissing
from app.settings import SettingInvalid, Settings
from app.storage.errors import StorageError
from models.errors import ModelError

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 30)
_KNOWN = (SettingInvalid, DatabaseMissing, CommandError, StorageError, ModelError, OSError)


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
_ads = group("Load ads, campaigns and advertisers.", no_args_is_help=True)
_events = group("Import and export events.", no_args_is_help=True)
app.add_typer(_db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(_ads, name="ads")
app.add_typer(_events, name="events")
app.add_typer(reports, name="reports")
app.add_typer(config, name="config")
app.add_typer(workers, name="workers")
app.command("status")(status)
app.command("doctor")(doctor)
app.add_typer(bench, name="bench")
app.add_typer(lab, name="lab")
app.add_typer(users, name="users")


def main() -> None:
    """Run the command of `sys.argv`; known errors are one message on standard error."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        app(prog_name="adscent")  # not the file of app.cli.main, when run by `python -m`
    except _KNOWN as error:
        message = f"error: {error}"
        Console(stderr=True).print(
            message, style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(1)


def _settings(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings of the environment, options of the command line on top."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(settings.from_environment(environment), **chosen)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Worker processes.")] = None,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    features: Features = None,
    env_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Settings, a line NAME=VALUE each."),
    ] = None,
) -> None:
    """Serve the HTTP API.

    Prometheus metrics of all workers are on an address of their own, 127.0.0.1:9090 by default.
    SIGHUP exchanges the workers one by one, with new code and the file of settings read again;
    SIGTERM stops once every request under way is answered.

    Examples: `adscent serve` · `adscent serve --workers 2 --env-file adscent.env`
    """
    from app.commands import serve as command

    base = dict(os.environ)

    def chosen() -> Settings:
        file = {} if env_file is None else settings.environment_of(env_file)
        given = {"host": host, "port": port, "workers": workers, "metrics_port": metrics_port}
        return _settings(base | file, features=features, **given)

    command.run(chosen(), chosen)


@app.command()
def jobs(features: Features = None) -> None:
    """Retrain, count statistics, keep the events' partitions, drop what is old.

    Of several processes one at a time leads and does the work.

    Examples: `adscent jobs` · `ADSCENT_RETRAIN_EVERY_S=60 adscent jobs`
    """
    from app import logs
    from jobs.__main__ import run

    chosen = _settings(features=features)
    logs.configure(chosen.log_level)
    asyncio.run(run(chosen))


@app.command()
def dashboard(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    features: Features = None,
) -> None:
    """Show a deployment in the browser and act on it: http://127.0.0.1:8081 by default.

    Log in with an API key that has the scope admin. `serve` and `jobs` run beside it.

    Example: `adscent dashboard`
    """
    from jobs.dashboard.server import run

    run(_settings(dashboard_host=host, dashboard_port=port, features=features))


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


@_db.command("rebase")
def rebase() -> None:
    """After a restore into another PostgreSQL: train and count on from the restored events.

    Transaction ids start again there, so training refuses to go on until this has run. Restore the
    snapshot store with the database. Does nothing where nothing was restored.

    Example: `adscent db rebase`
    """
    from app.commands import db as command

    command.rebase(_settings())
    print("training and statistics go on from the restored events")


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
def run_tests(
    context: typer.Context,
    faults: Annotated[bool, typer.Option(help="Kill, stop, fill, cut and count instead.")] = False,
    long: Annotated[bool, typer.Option(help="With --faults: stops of a minute.")] = False,
    report: Report = None,
) -> None:
    """Run the test suite, real PostgreSQL included; arguments go to pytest.

    With --faults, real processes are killed and starved under load and every event is counted; the
    report says what was seen. As root it fills small disks too.

    Examples: `adscent test` · `adscent test tests/unit -k encoder` ·
    `adscent test --faults --report faults.json` · `adscent test --faults -k killed_worker`
    """
    from app.commands import suite

    if (long or report is not None) and not faults:
        raise typer.BadParameter("--long and --report are for --faults")
    if faults:
        raise typer.Exit(suite.run_faults(context.args, is_long=long, report=report))
    raise typer.Exit(suite.run(context.args))


if __name__ == "__main__":
    main()
