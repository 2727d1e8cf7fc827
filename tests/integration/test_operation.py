"""`adscent status`, `doctor`, `config` and `workers` over a real database."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app import settings_table
from app.settings import SettingInvalid, Settings, environment_of
from app.storage import chunks, job_runs, keys, workers
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.processes import free_port
from tests.contract.conftest import fill_catalog, now_ms, promote_genesis, write_features

pytestmark = pytest.mark.anyio
_CLI = [sys.executable, "-c", "from app.cli.main import main; main()"]
_TOP = Path(__file__).resolve().parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    """Runs a command in the deployment."""
    write_features(tmp_path)

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        given = {
            "DATABASE_URL": database_url,
            "ADSCENT_HOME": str(tmp_path),
            "ADSCENT_FEATURES": str(tmp_path / "features.toml"),
            "ADSCENT_PORT": str(free_port()),
            "ADSCENT_METRICS_PORT": str(free_port()),
            "ADSCENT_JOBS_METRICS_PORT": str(free_port()),
            **settings,
        }
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(  # noqa: S603 - ours
            [*_CLI, *arguments],
            cwd=_TOP,
            env=inherited | given,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
async def deployment(database: Database, database_url: str, tmp_path: Path) -> Settings:
    """A catalog, a snapshot, a key for everything, and a worker that reports."""
    settings = Settings(home=tmp_path, features=write_features(tmp_path), database_url=database_url)
    catalog = Catalog(database)
    await fill_catalog(catalog)
    await promote_genesis(database, settings, catalog)
    await keys.create_api_key(database, "all", ["score", "ingest", "admin"], now_ms())
    await workers.register(database, uuid4(), "here/1/2", 4711, 1, uuid4())
    async with database.begin() as connection:  # however slow this machine is
        await connection.execute(sa.text("UPDATE workers SET seen_at = now() + interval '1 h'"))
    return settings


def _results(run: Run, **settings: str) -> tuple[int, dict[str, str], dict[str, str]]:
    ended = run("doctor", "--json", **settings)
    found = json.loads(ended.stdout)
    results = {one["check"]: one["result"] for one in found}
    return ended.returncode, results, {one["check"]: one["remedy"] for one in found}


@pytest.mark.usefixtures("deployment")
async def test_status_shows_workers_and_what_serves(run: Run) -> None:
    """The JSON names the worker, the snapshot, the catalog and the lags; the page prints them."""
    found = json.loads(run("status", "--json").stdout)
    [worker] = found["workers"]
    assert (worker["pid"], worker["state"], worker["catalog_version"]) == (4711, "serving", 1)
    assert found["serving"]["verdict"] == "accepted"
    assert (found["active_ads"], found["catalog_version"]) == (10, 1)
    page = run("status")
    assert page.returncode == 0
    assert "4711" in page.stdout
    assert found["serving"]["snapshot_id"] in page.stdout


@pytest.mark.usefixtures("deployment")
async def test_doctor_finds_a_sound_deployment_sound(database: Database, run: Run) -> None:
    """Without a fault the exit code is 0, and every check has looked."""
    async with job_runs.try_lead(database):
        await _horizon(database, age_s=-3600)  # however slow this machine is
        code, results, _ = _results(run)
    assert code == 0
    assert set(results.values()) == {"ok"}
    assert len(results) == 15


@pytest.mark.usefixtures("deployment")
@pytest.mark.parametrize(
    ("age_s", "leads", "result", "named"),
    [
        (None, False, "warning", "Start `adscent jobs`"),
        (-3600, False, "warning", "Start `adscent jobs`"),
        (31, False, "fault", "Start `adscent jobs`"),
        (31, True, "fault", "restart `adscent jobs`"),
    ],
)
async def test_doctor_sees_that_jobs_are_gone_or_hang(
    database: Database, run: Run, age_s: float | None, leads: bool, result: str, named: str
) -> None:
    """Three ticks without a horizon are a fault, whether or not a process holds the lead."""
    if age_s is not None:
        await _horizon(database, age_s)
    async with AsyncExitStack() as stack:
        if leads:
            await stack.enter_async_context(job_runs.try_lead(database))
        code, results, remedies = _results(run)
    assert (code, results["jobs"]) == (int(result == "fault"), result)
    assert named in remedies["jobs"]


async def _horizon(database: Database, age_s: float) -> None:
    await chunks.record_horizon(database)
    async with database.begin() as connection:
        text = "UPDATE horizons SET recorded_at = now() - make_interval(secs => :age_s)"
        await connection.execute(sa.text(text), {"age_s": age_s})


async def test_status_knows_whether_jobs_run(database: Database, run: Run) -> None:
    """Jobs run while one of their processes leads and goes on recording horizons."""
    assert json.loads(run("status", "--json").stdout)["jobs"] == "not running"
    async with job_runs.try_lead(database) as lead:
        assert lead is not None
        assert json.loads(run("status", "--json").stdout)["jobs"] == "running"
        await _horizon(database, age_s=31)
        assert json.loads(run("status", "--json").stdout)["jobs"] == "stalled"
        slower = run("status", "--json", ADSCENT_HORIZON_EVERY_S="60")
        assert json.loads(slower.stdout)["jobs"] == "running"


async def test_doctor_needs_a_database(run: Run) -> None:
    """A database that does not answer is a fault, with what to do."""
    code, results, remedies = _results(
        run, DATABASE_URL=f"postgresql://a@127.0.0.1:{free_port()}/a"
    )
    assert (code, results["database"]) == (1, "fault")
    assert "DATABASE_URL" in remedies["database"]


async def test_doctor_sees_missing_migrations(empty_database_url: str, run: Run) -> None:
    """An empty database needs `adscent db migrate`."""
    code, results, remedies = _results(run, DATABASE_URL=empty_database_url)
    assert (code, results["migrations"]) == (1, "fault")
    assert "adscent db migrate" in remedies["migrations"]


async def test_doctor_sees_another_feature_schema(
    deployment: Settings, run: Run, tmp_path: Path
) -> None:
    """Features that the served snapshot was not made with are a fault."""
    other = tmp_path / "other.toml"
    text = deployment.features.read_text()
    other.write_text(text.replace("[18, 30, 50]", "[18, 40]"))
    code, results, _ = _results(run, ADSCENT_FEATURES=str(other))
    assert (code, results["snapshot"]) == (1, "fault")


async def test_doctor_warns_of_what_may_be_meant(deployment: Settings, run: Run) -> None:
    """A port in use, threads, a silent worker, missing keys, no jobs: warnings, not faults."""
    database = Database(str(deployment.database_url))
    async with database.begin() as connection:
        await connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '9 s'"))
        await connection.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))
    await database.close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, results, remedies = _results(run, ADSCENT_PORT=port, OMP_NUM_THREADS="4")
    assert code == 0
    warned = {check for check, result in results.items() if result == "warning"}
    assert warned == {"port", "threads", "workers", "keys", "jobs"}
    assert all(remedies[check] for check in warned)


@pytest.mark.usefixtures("deployment")
async def test_forgotten_worker_is_gone(database: Database, run: Run) -> None:
    """`workers forget` takes out a worker, once."""
    [worker] = await workers.look(database)
    assert run("workers", "forget", str(worker.worker_id)).returncode == 0
    assert await workers.look(database) == []
    assert run("workers", "forget", str(worker.worker_id)).returncode == 1


def test_config_names_the_faulty_setting(run: Run, tmp_path: Path) -> None:
    """`config check` takes a good file and refuses a bad one, naming each fault with its limit."""
    assert run("config", "check").returncode == 0
    file = tmp_path / "adscent.env"
    file.write_text("# workers\nADSCENT_WORKERS='0'\nADSCENT_CANARY_SHARE=0.9\n")
    refused = run("config", "check", "--env-file", str(file))
    assert refused.returncode == 1
    assert "ADSCENT_WORKERS" in refused.stderr
    assert "ADSCENT_CANARY_SHARE" in refused.stderr


def test_config_show_hides_secrets(run: Run) -> None:
    """Every setting is shown with its value, the database's password is not."""
    shown = run("config", "show", ADSCENT_WORKERS="7").stdout
    assert "ADSCENT_SERVE_ALONE_S" in shown
    assert "(hidden)" in shown
    assert "postgresql://" not in shown


def test_every_setting_has_a_meaning() -> None:
    """The table of meanings has exactly the settings."""
    assert set(settings_table.MEANINGS) == {item.name for item in fields(Settings)}


def test_documentation_has_the_table_of_settings() -> None:
    """docs/operation.md holds what `adscent config show --markdown` prints."""
    text = (_TOP / "docs" / "operation.md").read_text(encoding="utf-8")
    assert settings_table.markdown() in text


def test_file_of_settings_is_read_as_others_read_it(tmp_path: Path) -> None:
    """Comments and quotes are dropped; what is no assignment is refused by its line."""
    file = tmp_path / "adscent.env"
    file.write_text('# a comment\n\nADSCENT_HOST="::1"\nDATABASE_URL=postgresql://a:b=c@h/d\n')
    found = environment_of(file)
    assert found == {"ADSCENT_HOST": "::1", "DATABASE_URL": "postgresql://a:b=c@h/d"}
    file.write_text("ADSCENT_PORT 80\n")
    with pytest.raises(SettingInvalid, match="line 1"):
        environment_of(file)
