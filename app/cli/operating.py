"""`adscent status`, `doctor`, `config` and `workers`: for whoever keeps a deployment running."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import settings
from app.cli.options import group
from app.settings import Settings

_Json = Annotated[bool, typer.Option("--json", help="For other programs.")]
_EnvFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Settings, a line NAME=VALUE each."),
]
_SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "fault": "[red]fault[/]"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

config = group("Settings: all of them with their meaning, and whether they are right.")
workers = group("The workers that changes wait for.", no_args_is_help=True)


def status(as_json: _Json = False) -> None:
    """What the deployment is doing: workers, what serves, lags, training runs, events.

    Examples: `adscent status` · `adscent status --json`
    """
    from app.commands import status as command

    found = command.read(settings.from_environment())
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    console = Console()
    console.print(_summary(found))
    console.print(_workers(found))
    console.print(_runs(found))


def doctor(as_json: _Json = False, env_file: _EnvFile = None) -> None:
    """Check database, migrations, keys, snapshots, clock, threads, disk and ports.

    Each fault comes with its remedy. The exit code is 1 when there is one, warnings aside.

    Example: `adscent doctor`
    """
    from app.commands import doctor as command

    findings = command.examine(_chosen(env_file))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
        for name in ("check", "result", "what was seen"):
            table.add_column(name, overflow="fold")
        for one in findings:
            remedy = f"\n→ {escape(one.remedy)}" if one.remedy else ""
            table.add_row(one.check, _SIGNS[one.result], escape(one.detail) + remedy)
        Console().print(table)
    if any(one.result == "fault" for one in findings):
        raise typer.Exit(1)


@config.command("check")
def check(env_file: _EnvFile = None) -> None:
    """Whether every setting can be used; each that cannot is named, with its limit.

    Example: `adscent config check --env-file adscent.env`
    """
    from models.features import load_schema

    chosen = _chosen(env_file)
    schema = load_schema(chosen.features)
    print(f"the settings can be used; {chosen.features} has the schema {schema.hash}")


@config.command("show")
def show(
    env_file: _EnvFile = None,
    markdown: Annotated[bool, typer.Option(help="The table of the documentation.")] = False,
) -> None:
    """Every setting: name, value, default and meaning. Secrets are hidden.

    Example: `adscent config show`
    """
    from app import settings_table

    if markdown:
        print(settings_table.markdown())
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("setting", "value", "default", "meaning"):
        table.add_column(name, overflow="fold")
    for row in settings_table.table(_chosen(env_file)):
        value = f"[bold]{escape(row.value)}[/]" if row.is_set else escape(row.value)
        table.add_row(row.variable, value, escape(row.default), escape(row.meaning))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@workers.command("forget")
def forget(worker_id: Annotated[UUID, typer.Argument(help="The id, see `status`.")]) -> None:
    """No longer wait for a worker of which you know that it is dead.

    If it lives after all it serves nothing until it has read every change, but it does not know
    so before it reaches the database: forget only what has ended.

    Example: `adscent workers forget 019ab…`
    """
    from app.commands import workers as command

    command.forget(settings.from_environment(), worker_id)
    print(f"nobody waits for worker {worker_id} any more")


def _chosen(env_file: Path | None) -> Settings:
    import os

    file = {} if env_file is None else settings.environment_of(env_file)
    return settings.from_environment({**os.environ, **file})


def _summary(found: object) -> Table:
    from app.commands.status import Status

    assert isinstance(found, Status)  # noqa: S101 - imported late, so not in the signature
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    serving = "nothing yet: `adscent jobs` makes the first snapshot"
    if found.serving is not None:
        pin = ", pinned" if found.serving.is_pinned else ""
        age = _age(found.serving.age_s)
        serving = f"{found.serving.snapshot_id} ({found.serving.verdict}, made {age} ago{pin})"
    lag = f"training {_ago(found.cursor_lag_s)}, horizon {_ago(found.horizon_lag_s)}"
    events = (
        f"{found.impressions_per_minute:,.0f} impressions, {found.clicks_per_minute:,.0f} clicks"
        " a minute (last five)"
    )
    catalog = f"version {found.catalog_version}, {found.active_ads:,} active ads"
    database = f"PostgreSQL {found.postgres}, {found.database}"
    rows = {"database": database, "catalog": catalog, "serving": serving}
    for name, value in (rows | {"events": events, "jobs": f"{found.jobs}; {lag}"}).items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    return table


def _workers(found: object) -> Table:
    from app.commands.status import Status

    assert isinstance(found, Status)  # noqa: S101 - imported late, so not in the signature
    table = Table(title="Workers", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("state", "host", "pid", "catalog", "snapshot", "heard", "id"):
        table.add_column(name, overflow="fold")
    for one in found.workers:
        behind = "" if one.catalog_version == found.catalog_version else " [yellow](behind)[/]"
        state = one.state if one.state == "serving" else f"[yellow]{one.state}[/]"
        table.add_row(
            *(state, escape(one.host.partition("/")[0]), str(one.pid)),
            *(f"{one.catalog_version}{behind}", _short(one.snapshot_id)),
            *(f"{_age(one.silent_s)} ago", str(one.id)),
        )
    return table


def _runs(found: object) -> Table:
    from app.commands.status import Status

    assert isinstance(found, Status)  # noqa: S101 - imported late, so not in the signature
    table = Table(title="Training", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("when", "verdict", "events", "reasons"):
        table.add_column(name, overflow="fold")
    for run in found.runs:
        reasons = escape("; ".join(run.reasons))
        table.add_row(f"{_age(run.age_s)} ago", run.state, f"{run.events:,}", reasons)
    return table


def _short(snapshot_id: UUID | None) -> str:
    return "" if snapshot_id is None else f"…{str(snapshot_id)[-12:]}"


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{_age(seconds)} ago"


def _age(seconds: float) -> str:
    for size, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
