"""`adscent reports performance`: the figures of the database as a table and as CSV."""

from __future__ import annotations

import asyncio
import csv
import io

import pytest
from typer.testing import CliRunner

from app.cli import main as cli
from app.commands import reports
from app.settings import Settings
from app.storage import counting
from app.storage.engine import Database
from app.storage.statistics import PerformanceQuery
from tests.integration.counted import fill_catalog, made, of, write
from tests.integration.making import DAY_MS, now_ms


@pytest.fixture
def counted_url(database_url: str) -> str:
    """A database with impressions of ads 1 and 2, one of them clicked, all counted."""
    asyncio.run(_fill(database_url))
    return database_url


async def _fill(url: str) -> None:
    database = Database(url)
    await fill_catalog(database)
    shown = [made(), made(ad_id=2), made(ad_id=2)]
    await write(database, *shown, of(shown[0], "click"))
    await counting.count(database)
    await database.close()


def test_table_of_campaigns(counted_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each campaign, the largest spend first, and until when it is complete."""
    monkeypatch.setenv("DATABASE_URL", counted_url)
    given = ["--group-by", "campaign", "--order-by", "spend_micros", "--limit", "1"]
    found = CliRunner().invoke(cli.app, ["reports", "performance", *given])
    assert found.exit_code == 0, found.output
    header, row = (line.split() for line in found.stdout.splitlines())
    assert header[:4] == ["campaign_id", "impressions", "clicks", "ctr"]
    assert row == ["2", "1", "1", "1.0", "0", "0", "0", "1500", "1500000"]
    assert "is counted" in found.stderr


@pytest.mark.parametrize(
    "groups", [["--group-by", "day", "--group-by", "ad"], ["--group-by", "day,ad"]]
)
def test_csv_of_ads(counted_url: str, monkeypatch: pytest.MonkeyPatch, groups: list[str]) -> None:
    """Every row, whatever the limit of a ranking is; groups as the API takes them or repeated."""
    monkeypatch.setenv("DATABASE_URL", counted_url)
    given = [*groups, "--limit", "1", "--format", "csv"]
    found = CliRunner().invoke(cli.app, ["reports", "performance", *given])
    rows = list(csv.DictReader(io.StringIO(found.stdout)))
    assert [(row["ad_id"], row["impressions"], row["ctr"]) for row in rows] == [
        ("1", "1", "1.0"),
        ("2", "2", "0.0"),
    ]


def test_long_reports_are_read_in_pages(counted_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit on one page is all there, each row once."""
    monkeypatch.setattr(reports, "_PAGE", 1)
    query = PerformanceQuery(0, now_ms() + DAY_MS, ("ad", "placement", "hour"))
    found = reports.performance(Settings(database_url=counted_url), query)
    assert [row[0] for row in found.rows] == ["1", "2"]


def test_nothing_counted_yet_is_said(database_url: str) -> None:
    """Before the first count the figures are empty for a reason."""
    query = PerformanceQuery(0, now_ms(), ("ad",))
    found = reports.performance(Settings(database_url=database_url), query)
    assert (found.rows, "adscent jobs" in found.note) == ([], True)


def test_an_unknown_group_is_refused() -> None:
    """The message names it and those that there are."""
    given = ["reports", "performance", "--group-by", "day,hours"]
    found = CliRunner().invoke(cli.app, given)
    assert found.exit_code == 2
    assert "'hours' is not one of hour, day" in " ".join(found.output.split())
