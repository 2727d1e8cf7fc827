"""An erasure among real processes: a value that was learned is gone from everywhere at once."""

from __future__ import annotations

import asyncio
import os
import shutil
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
from tests.contract.conftest import FEATURES, SCOPES, fill_catalog

_TOP = Path(__file__).resolve().parents[2]
_CLI = [sys.executable, "-c", "from app.cli.main import main; main()"]
ANN, NOBODY = {"visitor": "ann", "geo": "us"}, {"geo": "us"}


@dataclass
class Deployment:
    """A running `adscent serve` and `adscent jobs`."""

    url: str
    secret: str
    environment: dict[str, str]

    def call(self, method: str, path: str, **given: Any) -> Any:
        """The body of the answer to one request with the admin's key."""
        headers = {"Authorization": f"Bearer {self.secret}"}
        answer = httpx.request(method, self.url + path, headers=headers, timeout=10, **given)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tokens(self, user: dict[str, str], count: int) -> list[str]:
        """Tokens of so many decided ads."""
        asked = {"user": user, "slots": 10, "per_advertiser": 10}
        found: list[str] = []
        while len(found) < count:
            ads = self.call("POST", "/v1/decisions", json=asked)["ads"]
            found += [ad["token"] for ad in ads]
        return found[:count]

    def send(self, tokens: list[str], clicked: list[str]) -> None:
        """Store an impression of each token, and clicks of some, in one transaction."""
        events = [{"type": "impression", "token": token} for token in tokens]
        events += [{"type": "click", "token": token} for token in clicked]
        assert self.call("POST", "/v1/events", json={"events": events})["accepted"] == len(events)

    def pctr(self, user: dict[str, str]) -> float:
        """The probability that a user clicks ad 1."""
        asked = {"user": user, "ad_ids": [1]}
        return float(self.call("POST", "/v1/score", json=asked)["ads"][0]["pctr"])

    def served(self) -> str:
        """The id of the snapshot that answers."""
        answer = self.call("POST", "/v1/score", json={"user": {}, "ad_ids": [1]})
        return str(answer["snapshot_id"])

    def check(self) -> tuple[int, dict[str, str]]:
        """What `adscent users check-erased` ends with, and its line of each place."""
        done = subprocess.run(  # noqa: S603 - our own command
            [*_CLI, "users", "check-erased", "visitor", "-"],
            cwd=_TOP,
            env=self.environment,
            input="ann\n",
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.split("  ") for line in done.stdout.splitlines()[1:]]
        return done.returncode, {line[0].strip(): " ".join(line[1:]).strip() for line in lines}


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker and the jobs, over a small catalog; chunks are learned every second."""
    home = tmp_path_factory.mktemp("home")
    features = home / "features.toml"
    features.write_text(FEATURES + '[user.visitor]\nkind = "categorical"\n')
    postgres = EmbeddedPostgres(home, durable=False)
    settings = Settings(home=home, features=features, database_url=postgres.start())
    secret = asyncio.run(_prepare(settings))
    ports = free_ports(3)
    environment = _environment(settings, *ports)
    running = [
        subprocess.Popen([*_CLI, name], cwd=_TOP, env=environment)  # noqa: S603 - ours
        for name in ("jobs", "serve")
    ]
    try:
        found = Deployment(f"http://127.0.0.1:{ports[0]}", secret, environment)
        _await(lambda: _is_ready(found.url), 60)
        yield found
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)
        postgres.stop()
        shutil.rmtree(postgres.folder)


def test_a_learned_value_is_erased_everywhere(deployment: Deployment) -> None:
    """Stored events, the served snapshot, the one that a rollback brings back, a token in flight,
    and a request that sends it again: in none of them the value is found, and what learned from it
    is served as if it had not been given.
    """
    first = _learned(deployment)
    second = _learned(deployment)
    assert first != second
    assert deployment.pctr(ANN) != deployment.pctr(NOBODY)
    in_flight = deployment.tokens(ANN, 1)
    code, places = deployment.check()
    assert code == 1
    for place in ("tombstone", "new requests", "tokens in flight", "stored events", "snapshots"):
        assert places[place].startswith("NOT ERASED"), places

    answer = deployment.call("DELETE", "/v1/users/visitor/ann")
    assert (len(answer["acknowledged"]), answer["pending"]) == (1, [])
    assert deployment.pctr(ANN) == deployment.pctr(NOBODY)
    deployment.send(in_flight, in_flight)
    back = deployment.call("POST", "/v1/snapshots/rollback")["snapshot_id"]
    assert back == first
    _await(lambda: deployment.served() == first, 10)
    assert deployment.pctr(ANN) == deployment.pctr(NOBODY)
    _await(lambda: _erasure(deployment)["events_at"] is not None, 20)
    assert _erasure(deployment)["events"] == 120
    code, places = deployment.check()
    assert code == 0, places
    assert places["stored events"] == "erased 0 have the value"
    assert places["snapshots"].startswith("erased 0 of")

    # What is learned from now on does not know it either, from the same old snapshot on.
    before = int(places["snapshot files"].split()[0])
    assert _learned(deployment, is_served=False) not in (first, second)
    code, places = deployment.check()
    assert (code, int(places["snapshot files"].split()[0])) == (0, before)


def _learned(deployment: Deployment, *, is_served: bool = True) -> str:
    """Events of two visitors, and the snapshot that has learned them."""
    known = {one["id"] for one in deployment.call("GET", "/v1/snapshots")["items"]}
    ann = deployment.tokens(ANN, 60)
    bob = deployment.tokens({"visitor": "bob", "geo": "us"}, 60)
    deployment.send(ann + bob, ann[:20] + bob[:5])

    def made() -> list[str]:
        found = deployment.call("GET", "/v1/snapshots")["items"]
        return [str(one["id"]) for one in found if one["id"] not in known]

    _await(made, 30)
    [newest] = made()
    if is_served:
        _await(lambda: deployment.served() == newest, 20)
    return newest


def _erasure(deployment: Deployment) -> Any:
    return deployment.call("GET", "/v1/users/visitor/ann")


async def _prepare(settings: Settings) -> str:
    assert settings.database_url is not None
    await migrate.upgrade(settings.database_url)
    database = Database(settings.database_url)
    await fill_catalog(Catalog(database))
    _, secret = await keys.create_api_key(database, "test", SCOPES, time.time_ns() // 1_000_000)
    await database.close()
    return secret


def _environment(settings: Settings, *ports: int) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": str(settings.database_url),
        "ADSCENT_HOME": str(settings.home),
        "ADSCENT_FEATURES": str(settings.features),
        "ADSCENT_PORT": str(ports[0]),
        "ADSCENT_METRICS_PORT": str(ports[1]),
        "ADSCENT_JOBS_METRICS_PORT": str(ports[2]),
        "ADSCENT_ATTRIBUTION_WINDOW_S": "0",
        "ADSCENT_HORIZON_EVERY_S": "0.5",
        "ADSCENT_RETRAIN_EVERY_S": "1",
        "ADSCENT_ERASURE_EVERY_S": "0.5",
        "ADSCENT_CLICKS_PER_IMPRESSION": "2",
        "ADSCENT_LOG_LEVEL": "warning",
    }


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _await(condition: Callable[[], Any], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
