"""Commands against a real database: what they store, and what they say when they cannot."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from app.commands import ads, keys
from app.commands.errors import ImportInvalid
from app.settings import Settings
from app.storage import migrate
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
