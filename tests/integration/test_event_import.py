"""Events of files arrive once, faults are reported by line, and what leaves comes back the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

from app.commands import events
from app.settings import Settings
from app.storage import chunks, partitions
from app.storage.engine import Database
from app.storage.event_import import identity, import_day
from app.storage.events import EventWriter
from jobs.transfer import importing
from jobs.transfer.copy_rows import COLUMNS, HEADER, TRAILER
from jobs.transfer.event_file import EventFile
from jobs.transfer.exporting import export_events
from jobs.transfer.importing import Imported, check_file, import_file, write_rejected
from models.erasure import Erased
from models.errors import LogInvalid
from models.features import Encoder, pack
from models.schema import parse_schema
from tests.integration.making import click_on, event, now_ms

pytestmark = pytest.mark.anyio

SCHEMA = parse_schema(
    """
    version = 1
    [user.geo]
    kind = "categorical"
    [user.age]
    kind = "numeric"
    edges = [18, 30]
    [ad.category]
    kind = "multi"
    """
)
HEAD = "decided_at,ad_id,clicked,placement,user.geo,user.age,ad.category"
GOOD = (
    "2026-01-02T10:00:00Z,7,1,home,us,33,shoes|hats",
    "2026-01-02T11:00:00Z,8,0,home,ca,,shoes",
    "2026-01-03T00:00:00Z,7,0,,us,18,",
)


def _csv(folder: Path, *rows: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text("\n".join((HEAD, *rows)) + "\n")
    return path


async def _import(database: Database, path: Path, folder: Path) -> Imported:
    return await import_file(database, path, SCHEMA, folder / "ledgers")


async def _rows(database: Database) -> list[sa.Row[tuple[object, ...]]]:
    query = "SELECT * FROM events ORDER BY decided_at, decision_id, slot, type"
    async with database.begin() as connection:
        return list((await connection.execute(sa.text(query))).all())


async def test_a_log_becomes_impressions_and_clicks(database: Database, tmp_path: Path) -> None:
    """Features are packed as a decision packs them; the clicked row has a click of its key."""
    found = await _import(database, _csv(tmp_path, *GOOD), tmp_path)
    assert (found.written, found.duplicate, found.rejected) == (4, 0, [])
    click, first, second, third = await _rows(database)
    assert (click.type, click.features, click.decision_id) == ("click", None, first.decision_id)
    encoder = Encoder(SCHEMA)
    user, ad = (
        encoder.encode_user({"geo": "us", "age": 33}),
        encoder.encode_ad({"category": ["shoes", "hats"]}),
    )
    assert first.features == pack(user, ad)
    assert second.features == pack(
        encoder.encode_user({"geo": "ca"}), encoder.encode_ad({"category": ["shoes"]})
    )
    assert (first.decided_at, first.ad_id) == (datetime(2026, 1, 2, 10, tzinfo=UTC), 7)
    assert (first.placement, third.placement, first.propensity) == ("home", "", 1.0)
    assert await partitions.list_partitions(database) == [date(2026, 1, 2), date(2026, 1, 3)]


async def test_a_second_import_adds_nothing(database: Database, tmp_path: Path) -> None:
    """Days that are done are skipped; without the notes of the first run they are duplicates."""
    path = _csv(tmp_path, *GOOD)
    await _import(database, path, tmp_path)
    again = await _import(database, path, tmp_path)
    assert (again.written, again.skipped) == (0, 4)
    elsewhere = await _import(database, path, tmp_path / "other")
    assert (elsewhere.written, elsewhere.duplicate, elsewhere.skipped) == (0, 4, 0)
    assert len(await _rows(database)) == 4


async def test_a_file_that_was_moved_adds_nothing(database: Database, tmp_path: Path) -> None:
    """Its rows are known by what they hold, a click beside its impression too."""
    await _import(database, _csv(tmp_path, *GOOD), tmp_path)
    (tmp_path / "else").mkdir()
    moved = _csv(tmp_path / "else", *GOOD[:1], "", *GOOD[1:], name="other.csv")
    found = await _import(database, moved, tmp_path)
    assert (found.written, found.duplicate, found.skipped) == (0, 4, 0)


async def test_two_files_of_one_name_are_both_imported(database: Database, tmp_path: Path) -> None:
    """No row of one is taken for a row of the other."""
    for folder, row in (("a", GOOD[0]), ("b", GOOD[1])):
        (tmp_path / folder).mkdir()
        path = _csv(tmp_path / folder, row)
        found = await _import(database, path, tmp_path)
        assert (found.duplicate, found.skipped) == (0, 0)
    assert len(await _rows(database)) == 3


async def test_a_database_is_told_from_another(database: Database, database_url: str) -> None:
    """What one has of a file is not skipped for another of the same server."""
    url = sa.make_url(database_url).set(database="postgres")
    other = Database(url.render_as_string(hide_password=False))
    try:
        assert await identity(database) == await identity(database) != await identity(other)
    finally:
        await other.close()


async def test_an_unreadable_ledger_is_told(database: Database, tmp_path: Path) -> None:
    """The import goes through the file again, and the report says why."""
    path = _csv(tmp_path, *GOOD)
    await _import(database, path, tmp_path)
    [ledger] = (tmp_path / "ledgers").iterdir()
    ledger.write_bytes(b"")
    found = await _import(database, path, tmp_path)
    assert (found.duplicate, found.skipped, found.torn) == (4, 0, ledger)
    lines = events.summary([(path, found)], dry_run=False, rejected=None)
    assert str(ledger) in lines[1]


async def test_events_past_retention_are_told(database: Database, tmp_path: Path) -> None:
    """Those written to a day that retention drops, not those that are there before."""
    path, oldest = _csv(tmp_path, *GOOD), date(2026, 1, 3)
    found = await import_file(database, path, SCHEMA, tmp_path / "ledgers", oldest=oldest)
    again = await import_file(database, path, SCHEMA, tmp_path / "other", oldest=oldest)
    assert (found.written, found.old, again.old) == (4, 3, 0)
    lines = events.summary([(path, found)], dry_run=False, rejected=None)
    assert lines[1].startswith("  3 events written are from before 2026-01-03")


def test_a_dry_run_tells_of_old_events(tmp_path: Path) -> None:
    """The command reckons from today and the setting, before anything is stored."""
    features = """
    version = 1
    [user.geo]
    kind = "categorical"
    [ad.format]
    kind = "categorical"
    """
    (tmp_path / "features.toml").write_text(features)
    settings = Settings(home=tmp_path, features=tmp_path / "features.toml", event_retention_days=3)
    path, now = tmp_path / "log.csv", datetime.now(UTC)
    times = [(now - timedelta(days=days)).isoformat() for days in (0, 2, 5)]
    path.write_text("\n".join(("decided_at,ad_id", *(f"{one},7" for one in times))) + "\n")
    [(_, found)] = events.take(settings, [path], None, dry_run=True, told=lambda *_: None)
    assert (found.written, found.old) == (3, 1)


def test_rows_of_parquet_are_called_rows(tmp_path: Path) -> None:
    """They have no lines to look for."""
    path = tmp_path / "log.parquet"
    duckdb.execute(f"COPY (SELECT '2026-01-02T10:00:00Z' AS decided_at, 0 AS ad_id) TO '{path}'")
    lines = events.summary([(path, check_file(path, SCHEMA))], dry_run=True, rejected=None)
    assert lines[1].startswith("  row 1, ad_id: '0' is not")


async def test_an_import_goes_on_where_it_was_cut(database: Database, tmp_path: Path) -> None:
    """What one run stored before it ended is not written again by the next."""
    path, days = _csv(tmp_path, *GOOD), []

    def cut(done: int, _total: int) -> None:
        days.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await import_file(database, path, SCHEMA, tmp_path / "ledgers", told=cut)
    assert (days, len(await _rows(database))) == ([3], 3)
    found = await _import(database, path, tmp_path)
    assert (found.written, found.skipped) == (1, 3)


async def test_events_join_a_day_that_has_some(database: Database, tmp_path: Path) -> None:
    """A day with a partition takes the rows beside those of live traffic."""
    await partitions.ensure_partitions(database, now_ms())
    writer = EventWriter(database)
    await writer.write([event()])
    await writer.close()
    today = datetime.now(UTC).isoformat()
    found = await _import(database, _csv(tmp_path, f"{today},7,1,home,us,20,shoes"), tmp_path)
    assert (found.written, len(await _rows(database))) == (2, 3)


async def test_imported_events_are_in_a_partition_like_any_other(
    database: Database, tmp_path: Path
) -> None:
    """What was built aside has the key and the indexes, so a repeat over HTTP is a duplicate."""
    await _import(database, _csv(tmp_path, *GOOD), tmp_path)
    query = """
    SELECT count(*) FROM pg_indexes WHERE tablename IN ('events_20260102', 'events')
    GROUP BY tablename
    """
    async with database.begin() as connection:
        counts = list((await connection.execute(sa.text(query))).scalars())
    assert counts == [3, 3]
    first = (await _rows(database))[1]
    time_ms = int(first.decided_at.timestamp() * 1000)
    writer = EventWriter(database)
    assert await writer.write([event("impression", time_ms, first.decision_id)]) == ["duplicate"]
    await writer.close()


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("yesterday,7,0,home,us,20,shoes", "decided_at"),
        ("1767348000,7,0,home,us,20,shoes", "decided_at"),
        ("2026-01-02T10:00:00Z,0,0,home,us,20,shoes", "ad_id"),
        ("2026-01-02T10:00:00Z,x,0,home,us,20,shoes", "ad_id"),
        ("2026-01-02T10:00:00Z,7,2,home,us,20,shoes", "clicked"),
        (f"2026-01-02T10:00:00Z,7,0,{'x' * 33},us,20,shoes", "placement"),
        ("2026-01-02T10:00:00Z,7,0,home,us,old,shoes", "user.age"),
    ],
)
def test_a_bad_row_is_reported_with_its_line(tmp_path: Path, row: str, field: str) -> None:
    """The others are imported; the report names line, field and what is wrong."""
    found = check_file(_csv(tmp_path, GOOD[0], row, GOOD[1]), SCHEMA)
    [rejected] = found.rejected
    assert (rejected.line, rejected.field, found.written) == (3, field, 3)
    assert rejected.reason
    write_rejected([(Path("log.csv"), rejected)], tmp_path / "rejected.csv")
    written = (tmp_path / "rejected.csv").read_text().splitlines()
    assert written[1].startswith(f"log.csv,3,{field},")


@pytest.mark.parametrize("kind", ["parquet", "ndjson"])
def test_other_formats_are_read_alike(tmp_path: Path, kind: str) -> None:
    """The same rows from Parquet and NDJSON are the same events, faults included."""
    path = tmp_path / f"log.{kind}"
    rows = [
        {"decided_at": "2026-01-02T10:00:00Z", "ad_id": 7, "user.geo": "us", "user.age": 20},
        {"decided_at": "2026-01-02T10:00:00Z", "ad_id": -7, "user.geo": "us", "user.age": 20},
    ]
    lines = tmp_path / "lines.ndjson"
    lines.write_text("".join(json.dumps({**row, "ad.category": ["shoes"]}) + "\n" for row in rows))
    if kind == "parquet":
        duckdb.execute(f"COPY (FROM '{lines}') TO '{path}'")
    else:
        lines.rename(path)
    found = check_file(path, SCHEMA)
    assert (found.written, [one.line for one in found.rejected]) == (1, [2])


def test_a_mapping_names_columns_and_defaults(tmp_path: Path) -> None:
    """A file keeps its own names; what it lacks has one value for all rows."""
    path, mapping = tmp_path / "own.csv", tmp_path / "mapping.toml"
    path.write_text("when,item,country\n2026-01-02T10:00:00Z,7,us\n")
    mapping.write_text(
        '[columns]\ndecided_at = "when"\nad_id = "item"\n"user.geo" = "country"\n'
        '[defaults]\nplacement = "mail"\n'
    )
    with EventFile(path, SCHEMA, mapping) as file:
        [rows] = file.rows(date(2026, 1, 2))
    assert (rows.ad_id.tolist(), rows.placement, file.rejected) == ([7], "mail", [])


@pytest.mark.parametrize(
    "text",
    ['[columns]\nnothing = "when"', '[columns]\nad_id = "absent"', "[other]", "not toml", ""],
)
def test_a_mapping_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    """An unknown field, an absent column, a missing one: named before anything is read."""
    path, mapping = tmp_path / "own.csv", tmp_path / "mapping.toml"
    path.write_text("when,item\n2026-01-02T10:00:00Z,7\n")
    mapping.write_text(text)
    with pytest.raises(LogInvalid):
        EventFile(path, SCHEMA, mapping)


async def test_what_is_exported_comes_back_the_same(database: Database, tmp_path: Path) -> None:
    """Events leave as Parquet, CSV or NDJSON and return with every field, features too."""
    await partitions.ensure_partitions(database, now_ms())
    encoder = Encoder(SCHEMA)
    features = pack(encoder.encode_user({"geo": "us"}), encoder.encode_ad({"category": ["a", "b"]}))
    writer, shown = EventWriter(database), event(features=features)
    await writer.write([shown, click_on(shown)])
    await writer.close()
    before = [row[:11] for row in await _rows(database)]
    for name in ("out.parquet", "out.csv", "out.ndjson"):
        assert await export_events(database, tmp_path / name) == 2
        async with database.begin() as connection:
            await connection.execute(sa.text("DELETE FROM events"))
        assert (await _import(database, tmp_path / name, tmp_path)).written == 2
        assert [row[:11] for row in await _rows(database)] == before


async def test_a_large_day_is_learned_in_several_chunks_in_its_order(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day is one transaction, and yet no chunk need hold all of it; none holds later events
    than the next one.
    """
    monkeypatch.setattr(importing, "_PIECE", 10)
    rows = [f"2026-01-02T{n // 4:02}:{n % 4}0:00Z,7,0,{'ab'[n % 2]},us,20,hats" for n in range(60)]
    await _import(database, _csv(tmp_path, *reversed(rows)), tmp_path)
    await chunks.record_horizon(database)
    found: list[int] = []
    sizes, is_cut = [], True
    while is_cut:
        chunk = await chunks.read_chunk(database, 0.0, 15)
        async with database.begin() as connection:
            await chunks.advance(connection, chunk.start, chunk.end)
        found += chunk.time_ms.tolist()
        sizes.append(len(chunk))
        is_cut = chunk.is_cut
    assert (sum(sizes), max(sizes) <= 15, len(sizes) >= 4) == (60, True, True)
    assert found == sorted(found)


async def test_no_chunk_comes_near_an_import_that_runs(database: Database) -> None:
    """The later ids of a day's rows are below no horizon until the day is committed."""
    await partitions.ensure_partitions(database, now_ms())
    ids: list[int] = []

    async def lay(_: Erased, given: Sequence[int]) -> AsyncIterator[bytes]:
        ids.extend(given)
        writer = EventWriter(database)  # others go on, and their ids are higher still
        await writer.write([event()])
        await writer.close()
        assert await chunks.record_horizon(database) <= given[0]
        yield HEADER
        yield TRAILER

    await import_day(database, date(2026, 1, 2), COLUMNS, lay, 3)
    assert ids == sorted(set(ids))
    assert await chunks.record_horizon(database) > ids[-1]
