"""`adscent users`: the commands of erasure."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app import settings
from app.cli.options import Features, group

users = group("Erase values of users, and prove that they are erased.", no_args_is_help=True)
_UNCUT = 4096
"""Wider than any line: rows are for other programs too, and a terminal wraps them by itself."""

_Feature = Annotated[str, typer.Argument(help="The user feature, as in the schema: `visitor`.")]
_Value = Annotated[
    str, typer.Argument(help="The value; `-` reads it from standard input, out of shell history.")
]


@users.command("erase")
def erase(feature: _Feature, value: _Value, features: Features = None) -> None:
    """Treat a value as missing from now on, wherever it is met. There is no way back.

    Workers follow within seconds; the jobs process takes it out of stored events.

    Examples: `adscent users erase visitor 8d1f` · `adscent users erase visitor - < value`
    """
    from app.commands import users as command
    from app.storage.erasures import shown

    found = command.erase(_settings(features), feature, _given(value))
    print(f"{found.feature} {shown(found.hash)} is erased: erasure {found.version}")


@users.command("check-erased")
def check_erased(feature: _Feature, value: _Value, features: Features = None) -> None:
    """Look for a value in stored events, snapshots, tokens, workers; exit with 1 if it is found.

    Reads every stored impression and maps every snapshot that may serve.

    Example: `adscent users check-erased visitor 8d1f`
    """
    from app.commands import users as command

    found = command.check(_settings(features), feature, _given(value))
    table = Table("place", "", "found", box=None, padding=(0, 2, 0, 0))
    for one in found:
        word = {True: "erased", False: "NOT ERASED", None: ""}[one.passed]
        table.add_row(one.place, word, one.found)
    Console(width=_UNCUT).print(table)
    raise typer.Exit(int(any(one.passed is False for one in found)))


def _given(value: str) -> str:
    return sys.stdin.readline().rstrip("\n") if value == "-" else value


def _settings(features: Path | None) -> settings.Settings:
    found = settings.from_environment()
    return found if features is None else replace(found, features=features)
