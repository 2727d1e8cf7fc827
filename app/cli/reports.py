"""`adscent reports`: figures of a deployment's ads, from its database."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from app import settings
from app.cli.options import group

reports = group("Report what ads did and what they cost.", no_args_is_help=True)

_UNCUT = 4096
"""Wider than any line: rows are for other programs too, and a terminal wraps them by itself."""
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%dT%H:00:00Z"]


class _Dimension(StrEnum):
    """What rows stand for."""

    HOUR = "hour"
    DAY = "day"
    AD = "ad"
    CAMPAIGN = "campaign"
    ADVERTISER = "advertiser"
    PLACEMENT = "placement"
    SNAPSHOT = "snapshot"


class _Ranked(StrEnum):
    """By what the largest come first."""

    IMPRESSIONS = "impressions"
    CLICKS = "clicks"
    CONVERSIONS = "conversions"
    CONVERSION_VALUE_MICROS = "conversion_value_micros"
    SPEND_MICROS = "spend_micros"


class _Format(StrEnum):
    """How the report is printed."""

    TABLE = "table"
    CSV = "csv"


def _dimensions(given: list[str] | None) -> list[str]:
    """Those given, each by itself."""
    named = [one.strip() for text in given or () for one in text.split(",")]
    for one in named:
        if one not in list(_Dimension):
            raise typer.BadParameter(f"{one!r} is not one of {', '.join(_Dimension)}.")
    return named


@reports.callback()
def _group() -> None:
    """Keep `performance` a command of its own: a group of one would be taken for it."""


@reports.command("performance")
def performance(
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            help="One row for each; commas between several, or repeated.",
            metavar=f"[{'|'.join(_Dimension)}]",
            callback=_dimensions,
        ),
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="First hour, UTC; else 24 hours ago.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="The hour after the last one.")
    ] = None,
    ad: Annotated[list[int] | None, typer.Option(help="Only this ad; may be repeated.")] = None,
    campaign: Annotated[list[int] | None, typer.Option(help="Only this campaign.")] = None,
    advertiser: Annotated[list[int] | None, typer.Option(help="Only this advertiser.")] = None,
    placement: Annotated[list[str] | None, typer.Option(help="Only this placement.")] = None,
    snapshot: Annotated[list[UUID] | None, typer.Option(help="Only this snapshot.")] = None,
    order_by: Annotated[_Ranked | None, typer.Option(help="Largest first.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows of a ranking.")] = 20,
    format_: Annotated[_Format, typer.Option("--format", help="As what.")] = _Format.TABLE,
) -> None:
    """Print impressions, clicks, conversions and spend by ad, campaign, hour and more.

    An event counts in the hour of its decision; quarantined ones do not count.

    Examples: `adscent reports performance --group-by campaign --order-by spend_micros` ·
    `adscent reports performance --group-by day,ad --since 2026-11-01 --format csv`
    """
    from app.commands import reports as command
    from app.storage.statistics import PerformanceQuery

    since_ms, until_ms = command.hours(since, until)
    query = PerformanceQuery(
        since_ms=since_ms,
        until_ms=until_ms,
        group_by=tuple(dict.fromkeys(_Dimension(one).value for one in group_by or ())),
        ad_ids=ad or (),
        campaign_ids=campaign or (),
        advertiser_ids=advertiser or (),
        placements=placement or (),
        snapshot_ids=snapshot or (),
        ranked_by=order_by.value if order_by else None,
        limit=limit,
    )
    found = command.performance(settings.from_environment(), query)
    if format_ is _Format.CSV:
        print(found.csv, end="")
    else:
        _print(found.columns, found.rows)
    Console(stderr=True).print(found.note, highlight=False, soft_wrap=True)


def _print(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console(width=_UNCUT).print(table)
