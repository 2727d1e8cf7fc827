"""Options that commands share, and how their groups are set up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def group(text: str, **options: Any) -> typer.Typer:
    """A group of commands, as all of them are set up."""
    return typer.Typer(
        help=text,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
        **options,
    )


def checked(option: typer.CallbackParam, path: Path | None) -> Path | None:
    """The path of a file to write at the end, found writable before any work. `ReportUnwritable`"""
    if path is not None:
        from jobs.output import check_writable

        check_writable(option.opts[0], path)
    return path


Report = Annotated[
    Path | None, typer.Option(help="Write the JSON report to this file.", callback=checked)
]
Html = Annotated[Path | None, typer.Option(help="Write a page with plots.", callback=checked)]
Features = Annotated[Path | None, typer.Option(help="The feature schema.", show_default=False)]
Quick = Annotated[bool, typer.Option(help="Small sizes: whether it runs, not how fast.")]
Seed = Annotated[int, typer.Option(min=0, help="Seeds everything that is random.")]
