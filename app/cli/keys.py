"""`adscent keys`: the commands of API keys and of the key of the tokens."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from app import settings
from app.cli.options import group

keys = group(
    "Make, list, rotate and revoke API keys; rotate the key of the tokens.", no_args_is_help=True
)
_UNCUT = 4096
"""Wider than any line: rows are for other programs too, and a terminal wraps them by itself."""

_KeyId = Annotated[UUID, typer.Argument(help="The id, see `keys list`.")]


class _Scope(StrEnum):
    """What an API key is good for."""

    SCORE = "score"
    INGEST = "ingest"
    ADMIN = "admin"


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the audit.")],
    scope: Annotated[list[_Scope], typer.Option(help="What it is good for; may be repeated.")],
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="How long it lives (s, m, h or d); else ever.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second in each worker; else ADSCENT_KEY_REQUESTS_PER_S."),
    ] = None,
) -> None:
    """Make an API key. Its secret is shown once and stored only as a hash.

    Examples: `adscent keys create website --scope score --scope ingest` ·
    `adscent keys create agency --scope admin --expires 90d --rate 20`
    """
    from app.commands import keys as command

    scopes = [one.value for one in scope]
    made = command.create(settings.from_environment(), name, scopes, expires, rate)
    _show(*made)


@keys.command("rotate")
def rotate(
    key_id: _KeyId,
    grace: Annotated[
        str, typer.Option(metavar="1d", help="How long the old one still works (s, m, h or d).")
    ] = "1d",
) -> None:
    """Make a key with the same name, scopes and rate; the old one ends after the grace.

    Example: `adscent keys rotate 019ab… --grace 1h`
    """
    from app.commands import keys as command

    _show(*command.rotate(settings.from_environment(), key_id, grace))
    print(f"{key_id} ends in {grace}, or earlier where it was to.")


@keys.command("limit")
def limit(
    key_id: _KeyId,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second in each worker; else ADSCENT_KEY_REQUESTS_PER_S."),
    ] = None,
) -> None:
    """Set how many requests a key may send; within seconds it holds on all workers.

    Example: `adscent keys limit 019ab… --rate 50`
    """
    from app.commands import keys as command

    print(f"{key_id}: {command.rate_of(command.limit(settings.from_environment(), key_id, rate))}")


@keys.command("list")
def listed() -> None:
    """List all API keys.

    Example: `adscent keys list`
    """
    from app.commands import keys as command

    columns = ("id", "state", "name", "scopes", "created", "ends", "rate")
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for key in command.listed(settings.from_environment()):
        ends = "never" if key.expires_ms is None else command.moment(key.expires_ms)
        described = (str(key.id), command.state(key), key.name, ", ".join(sorted(key.scopes)))
        table.add_row(*described, command.moment(key.created_ms), ends, command.rate_of(key))
    Console(width=_UNCUT).print(table)


@keys.command("revoke")
def revoke(key_id: _KeyId) -> None:
    """Revoke an API key; within seconds no worker takes it any more.

    Example: `adscent keys revoke 019ab…`
    """
    from app.commands import keys as command

    command.revoke(settings.from_environment(), key_id)
    print(f"{key_id} is revoked")


@keys.command("rotate-token")
def rotate_token() -> None:
    """Seal tokens with a new key from the next minute on; no token given out before is lost.

    Old keys open tokens as long as an event can be stored with them, then the jobs drop them.
    Rotate before four thousand million tokens, or when a key may have been seen.

    Example: `adscent keys rotate-token`
    """
    from app.commands import keys as command

    key_id = command.rotate_token(settings.from_environment())
    print(f"token key {key_id} seals from the next minute on")


def _show(key_id: UUID, secret: str) -> None:
    print(f"id      {key_id}\nsecret  {secret}\nThe secret is not shown again.")
