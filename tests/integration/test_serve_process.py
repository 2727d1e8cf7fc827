"""`adscent serve` as a real process: two workers, a pause, metrics, and the database going away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from app.storage import keys, migrate
from app.storage.catalog import Catalog
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.processes import free_ports
from tests.contract.conftest import SCOPES, fill_catalog, promote_genesis, write_features

_CLI = [sys.executable, "-c", "from app.cli.main import main; main()"]
_TOP = Path(__file__).resolve().parents[2]
USER = {"user": {"geo": "us"}, "slots": 50}


@dataclass
class Deployment:
    """A running `adscent serve` and the database below it."""

    process: subprocess.Popen[bytes]
    postgres: EmbeddedPostgres
    url: str
    metrics_url: str
    secret: str

    def call(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request on a connection of its own, so that any worker may take it."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=10, **given)

    def served(self) -> list[int]:
        """The ads of one decision."""
        answer = self.call("POST", "/v1/decisions", json=USER)
        assert answer.status_code == 200, answer.text
        return [ad["ad_id"] for ad in answer.json()["ads"]]

    def workers(self) -> list[int]:
        """Process ids of the workers: what Python's fork server forked for uvicorn."""
        servers = [pid for pid in _children(self.process.pid) if b"forkserver" in _command(pid)]
        return [pid for server in servers for pid in _children(server)]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers over an embedded PostgreSQL, with a small catalog and a genesis snapshot."""
    home = tmp_path_factory.mktemp("home")
    postgres = EmbeddedPostgres(home, durable=False)
    url = postgres.start()
    settings = Settings(home=home, features=write_features(home), database_url=url)
    secret = asyncio.run(_prepare(settings))
    ports = free_ports(2)
    environment = _environment(settings, *ports)
    process = subprocess.Popen([*_CLI, "serve"], cwd=_TOP, env=environment)  # noqa: S603  # ours
    found = Deployment(
        process, postgres, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", secret
    )
    try:
        _await(lambda: len(_acknowledging(found)) == 2, 60)
        yield found
    finally:
        process.terminate()
        process.wait(20)
        postgres.stop()
        shutil.rmtree(postgres.folder)  # root keeps it outside of the home


async def _prepare(settings: Settings) -> str:
    assert settings.database_url is not None
    await migrate.upgrade(settings.database_url)
    database = Database(settings.database_url)
    catalog = Catalog(database)
    await fill_catalog(catalog)
    await promote_genesis(database, settings, catalog)
    _, secret = await keys.create_api_key(database, "all", list(SCOPES), 0)  # type: ignore[arg-type]
    await database.close()
    return secret


def _environment(settings: Settings, port: int, metrics_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": str(settings.database_url),
        "ADSCENT_HOME": str(settings.home),
        "ADSCENT_FEATURES": str(settings.features),
        "ADSCENT_PORT": str(port),
        "ADSCENT_METRICS_PORT": str(metrics_port),
        "ADSCENT_WORKERS": "2",
        "ADSCENT_LOG_LEVEL": "warning",
    }


def _acknowledging(deployment: Deployment) -> list[str]:
    """The workers that acknowledge a change, none while the server does not answer."""
    try:
        answer = deployment.call("PATCH", "/v1/ads/1", json={"state": "active"})
        ready = deployment.call("GET", "/readyz")
    except httpx.TransportError:
        return []
    if answer.status_code != 200 or ready.status_code != 200:
        return []
    return list(answer.json()["acknowledged"])


def test_pause_is_acknowledged_by_both_workers(deployment: Deployment) -> None:
    """After the 200 no connection, whichever worker it reaches, is served the paused ad."""
    assert 10 in deployment.served()
    answer = deployment.call("PATCH", "/v1/ads/10", json={"state": "paused"})
    assert answer.status_code == 200
    assert len(answer.json()["acknowledged"]) == 2
    assert all(10 not in deployment.served() for _ in range(30))
    deployment.call("PATCH", "/v1/ads/10", json={"state": "active"})


def test_metrics_are_those_of_all_workers(deployment: Deployment) -> None:
    """Every decision is counted once, whichever worker made it."""
    before = _metric(deployment, 'adscent_decisions_total{certified="true"')
    for _ in range(30):
        deployment.served()
    assert _metric(deployment, 'adscent_decisions_total{certified="true"') == before + 30
    text = httpx.get(deployment.metrics_url + "/metrics").text
    versions = [line for line in text.splitlines() if line.startswith("adscent_catalog_version{")]
    assert len(versions) == 2
    assert 'adscent_requests_total{method="POST",route="/v1/decisions",status="200"}' in text


def test_killed_worker_is_replaced_and_not_waited_for(deployment: Deployment) -> None:
    """kill -9 of a worker: requests go on, changes are acknowledged, a new worker joins."""
    victim = deployment.workers()[0]
    os.kill(victim, signal.SIGKILL)
    answer = deployment.call("PATCH", "/v1/ads/9", json={"state": "paused"})
    assert answer.status_code == 200, answer.text
    assert 9 not in deployment.served()
    deployment.call("PATCH", "/v1/ads/9", json={"state": "active"})
    _await(lambda: len(_acknowledging(deployment)) == 2, 60)
    assert victim not in deployment.workers()


def test_database_away_and_back(deployment: Deployment) -> None:
    """Decisions go on from memory, events answer 503 with Retry-After, and all recovers."""
    token = deployment.call("POST", "/v1/decisions", json=USER).json()["ads"][0]["token"]
    events = {"events": [{"type": "impression", "token": token}]}
    deployment.postgres.stop()
    assert 10 in deployment.served()
    score = deployment.call("POST", "/v1/score", json={"user": {}, "ad_ids": [1]})
    assert score.status_code == 200
    refused = deployment.call("POST", "/v1/events", json=events)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert deployment.call("PATCH", "/v1/ads/1", json={"state": "paused"}).status_code == 503
    # Each worker notices by itself, so only what one of them says at once belongs together.
    _await(lambda: _says_why(deployment.call("GET", "/readyz").json()), 15)
    deployment.postgres.start()
    _await(lambda: deployment.call("POST", "/v1/events", json=events).status_code == 200, 30)
    again = deployment.call("POST", "/v1/events", json=events).json()
    assert (again["accepted"], again["duplicate"]) == (0, 1)
    _await(lambda: len(_acknowledging(deployment)) == 2, 30)
    _await(lambda: deployment.call("GET", "/readyz").json()["status"] == "ready", 15)


def _says_why(answer: dict[str, Any]) -> bool:
    return answer["status"] == "degraded" and "database" in answer["reasons"][0]


def test_workers_do_not_load_the_training_compiler(deployment: Deployment) -> None:
    """numba would cost each worker tens of megabytes; only the jobs process needs it."""
    for pid in deployment.workers():
        assert "llvmlite" not in Path(f"/proc/{pid}/maps").read_text()


def test_workers_share_what_they_have_imported(deployment: Deployment) -> None:
    """A worker's own memory is far less than what the interpreter and the libraries take."""
    for pid in deployment.workers():
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        assert sizes["Private_Dirty"] < 65_000 < sizes["Rss"]  # kB; 80,000 where nothing is shared


def test_workers_end_with_their_parent(deployment: Deployment) -> None:
    """kill -9 of the parent leaves no worker behind."""
    workers = deployment.workers()
    assert len(workers) == 2
    deployment.process.kill()
    deployment.process.wait(10)
    _await(lambda: not any(_is_running(pid) for pid in workers), 15)


def test_missing_database_is_explained(tmp_path: Path) -> None:
    """Without a database `serve` says what to start, on one line, and ends."""
    environment = {"PATH": os.environ["PATH"], "ADSCENT_HOME": str(tmp_path)}
    environment["ADSCENT_FEATURES"] = str(write_features(tmp_path))
    ended = subprocess.run(  # noqa: S603  # ours
        [*_CLI, "serve"], cwd=_TOP, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "adscent db" in ended.stderr
    assert "Traceback" not in ended.stderr


def _metric(deployment: Deployment, name: str) -> float:
    text = httpx.get(deployment.metrics_url + "/metrics").text
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)
    )


def _await(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


def _children(parent: int) -> list[int]:
    task = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in task.read_text().split()]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
