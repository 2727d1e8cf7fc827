"""Commands against a real database: what they store, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import main as cli
from app.commands import ads, events, keys
from app.commands.errors import DurationInvalid, ImportInvalid
from app.commands.session import with_database
from app.settings import Settings
from app.storage import migrate
from app.storage.audit import list_audit
from app.storage.embedded import EmbeddedPostgres
from app.storage.errors import MigrationsPending
from tests.unit.conftest import SCHEMA


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    """Settings of a migrated database and a small schema."""
    features = tmp_path / "features.toml"
    features.write_text(SCHEMA)
    return Settings(home=tmp_path, features=features, database_url=database_url)


def _import(settings: Settings, *lines: str) -> None:
    file = settings.home / "file.ndjson"
    file.write_text("\n".join(lines))
    ads.import_file(settings, file)


def test_command_waits_for_no_migration(tmp_path: Path, empty_database_url: str) -> None:
    """Without tables a command names the remedy instead of PostgreSQL's own complaint."""
    with pytest.raises(MigrationsPending, match="adscent db migrate"):
        keys.listed(Settings(home=tmp_path, database_url=empty_database_url))


def test_embedded_database_is_found_only_when_migrated(tmp_path: Path) -> None:
    """While it migrates, other processes find no database; afterwards one with every table."""
    seen: list[str | None] = []

    def prepare(url: str) -> None:
        seen.append(EmbeddedPostgres.url_of(tmp_path))
        asyncio.run(migrate.upgrade(url))

    server = EmbeddedPostgres(tmp_path, durable=False, prepare=prepare)
    try:
        with server:
            assert seen == [None]
            assert keys.listed(Settings(home=tmp_path)) == []
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)


def test_unknown_and_retired_rows_are_named_together(settings: Settings) -> None:
    """Every line that the catalog contradicts is named, in the order of the file."""
    _import(
        settings,
        '{"advertiser": {"id": 3}}',
        '{"campaign": {"id": 7, "advertiser_id": 3}}',
        '{"id": 1, "campaign_id": 7, "bid_micros": 5, "state": "retired"}',
    )
    with pytest.raises(ImportInvalid) as raised:
        _import(
            settings,
            '{"id": 1, "campaign_id": 7, "bid_micros": 5}',
            '{"id": 2, "campaign_id": 99, "bid_micros": 5}',
            '{"campaign": {"id": 8, "advertiser_id": 99}}',
        )
    first, second, third = raised.value.faults
    assert first.startswith("line 1: state (given: 'active'): ad 1 is retired")
    assert second.startswith("line 2: campaign_id (given: 99): there is no such campaign")
    assert third.startswith("line 3: advertiser_id (given: 99): there is no such advertiser")


def test_key_list_shows_what_is_revoked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piped, each key has one whole line, whatever the width of the terminal."""
    scopes = ["score", "ingest", "admin"]
    kept, _ = keys.create(settings, "kept", scopes)
    gone, _ = keys.create(settings, "a long name for a key that has been revoked", scopes)
    keys.revoke(settings, gone)
    monkeypatch.setenv("DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(cli.app, ["keys", "list"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert any(f"{kept}  active" in line and "score" in line and "admin" in line for line in lines)
    assert any(f"{gone}  revoked 20" in line and "has been revoked" in line for line in lines)


def test_key_is_made_rotated_and_limited_by_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`keys list` shows the end and the rate of each; a rotated one ends with its grace."""
    monkeypatch.setenv("DATABASE_URL", str(settings.database_url))
    run = CliRunner().invoke
    scope = ["--scope", "admin", "--expires", "90d", "--rate", "20"]
    made = run(cli.app, ["keys", "create", "agency", *scope])
    key_id = made.output.split()[1]
    assert "secret  adscent_" in made.output
    assert "ends in 1h" in run(cli.app, ["keys", "rotate", key_id, "--grace", "1h"]).output
    assert f"{key_id}: 5/s" in run(cli.app, ["keys", "limit", key_id, "--rate", "5"]).output
    old, new = run(cli.app, ["keys", "list"]).output.splitlines()[1:]
    assert old.startswith(f"{key_id}  active")
    assert old.split()[-1] == "5/s"
    assert new.split()[-1] == "20/s"
    assert "never" not in old + new


@pytest.mark.parametrize("given", ["90", "d", "1w", "-1d", "1.5h", "9999999d"])
def test_length_of_time_is_explained(given: str) -> None:
    """What is no length of time is refused with an example of one."""
    with pytest.raises(DurationInvalid, match="90d"):
        keys.milliseconds(given)


def test_import_of_events_is_audited(settings: Settings, tmp_path: Path) -> None:
    """What is imported is trained on, so who wants to know can see that it was."""
    file = tmp_path / "log.csv"
    yesterday = datetime.now(UTC) - timedelta(days=1)
    file.write_text(f"decided_at,ad_id,clicked\n{yesterday:%Y-%m-%dT%H:%M:%SZ},1,0\n")
    [(_, found)] = events.take(settings, [file], None, dry_run=False, told=lambda *_: None)
    assert found.written == 1
    [row] = with_database(settings, lambda database: list_audit(database, 1, subject="events"))
    assert (row.actor, row.action) == ("cli", "import")
    assert row.after == {"file": "log.csv", "written": 1, "rejected": 0}
