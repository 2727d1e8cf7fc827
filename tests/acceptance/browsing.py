"""A whole deployment with its dashboard, and a real browser in front of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from playwright.sync_api import Request as BrowserRequest

from app.settings import Settings
from app.storage import keys, migrate
from app.storage.catalog import Catalog
from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.processes import free_ports
from tests.contract.conftest import fill_catalog, write_features

ROOT = Path(__file__).parents[2]
_CLI = [sys.executable, "-m", "app.cli.main"]
_NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@dataclass
class Deployment:
    """`serve` with two workers, `jobs` and `dashboard`, each a process, over one database."""

    api: str
    dashboard: str
    environment: dict[str, str]
    keys: dict[str, tuple[UUID, str]]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def secret(self, name: str) -> str:
        """The secret of the key of this name."""
        return self.keys[name][1]

    def call(self, method: str, path: str, **given: Any) -> Any:
        """The JSON of one successful call of the API."""
        headers = {"Authorization": f"Bearer {self.secret('ana')}"}
        answer = httpx.request(method, self.api + path, headers=headers, timeout=15, **given)
        assert answer.is_success, answer.text
        return answer.json()

    def served(self) -> list[int]:
        """The ads of one decision, on a connection of its own."""
        body = {"user": {"geo": "us"}, "slots": 50, "per_advertiser": 50}
        return [ad["ad_id"] for ad in self.call("POST", "/v1/decisions", json=body)["ads"]]

    def show(self, pages: int = 3) -> None:
        """Let some visitors see ads, and one in each page click."""
        for _ in range(pages):
            body = {"user": {"geo": "us"}, "slots": 5, "per_advertiser": 5}
            tokens = [ad["token"] for ad in self.call("POST", "/v1/decisions", json=body)["ads"]]
            events = [{"type": "impression", "token": token} for token in tokens]
            events.append({"type": "click", "token": tokens[0]})
            self.call("POST", "/v1/events", json={"events": events})

    def trained(self, **overrides: float) -> dict[str, Any]:
        """Ask for a run and wait until it has ended; an empty one is asked for again."""
        until = time.monotonic() + 30
        while True:
            run = self.call("POST", "/v1/retrains", json=overrides)
            while run["finished_at"] is None:
                assert time.monotonic() < until, run
                time.sleep(0.1)
                run = self.call("GET", f"/v1/retrains/{run['id']}")
            if run["state"] != "empty":
                return dict(run)

    def command(self, *arguments: str) -> str:
        """What a command of the deployment prints."""
        return subprocess.run(  # noqa: S603  # our own interpreter
            [*_CLI, *arguments],
            env=self.environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@contextmanager
def deployed(home: Path) -> Iterator[Deployment]:
    """The deployment with ten ads and three keys: ana and eve may do anything, bob only score."""
    postgres = EmbeddedPostgres(home, durable=False)
    try:
        url = postgres.start()
        settings = Settings(home=home, features=write_features(home), database_url=url)
        made = asyncio.run(_prepared(settings))
        ports = free_ports(5)
        found = Deployment(
            f"http://127.0.0.1:{ports[0]}",
            f"http://127.0.0.1:{ports[1]}",
            _environment(settings, ports),
            made,
        )
        try:
            _start(found)
            yield found
        finally:
            for process in found.processes:
                process.terminate()
            for process in found.processes:
                process.wait(20)
    finally:
        postgres.stop()
        shutil.rmtree(postgres.folder)  # root keeps it outside of the home


def _start(found: Deployment) -> None:
    for command in ("jobs", "serve", "dashboard"):
        process = subprocess.Popen([*_CLI, command], cwd=ROOT, env=found.environment)  # noqa: S603
        found.processes.append(process)
    eventually(lambda: _answers(found.dashboard + "/healthz"), 60)
    eventually(lambda: _answers(found.api + "/readyz"), 60)
    eventually(lambda: len(_acknowledging(found)) == 2, 60)


async def _prepared(settings: Settings) -> dict[str, tuple[UUID, str]]:
    assert settings.database_url is not None
    await migrate.upgrade(settings.database_url)
    database = Database(settings.database_url)
    await fill_catalog(Catalog(database))
    scopes = {"ana": ["score", "ingest", "admin"], "eve": ["admin"], "bob": ["score"]}
    made = {
        name: await keys.create_api_key(database, name, listed, 0)
        for name, listed in scopes.items()
    }
    await database.close()
    return made


def _environment(settings: Settings, ports: list[int]) -> dict[str, str]:
    own = {
        "HOME": settings.home,
        "FEATURES": settings.features,
        "PORT": ports[0],
        "DASHBOARD_PORT": ports[1],
        "METRICS_PORT": ports[2],
        "JOBS_METRICS_PORT": ports[3],
        "WORKERS": 2,
        "LOG_LEVEL": "warning",
        "RETRAIN_EVERY_S": 3600,
        "HORIZON_EVERY_S": 0.5,
        "ATTRIBUTION_WINDOW_S": 0,
        "CATALOG_POLL_S": 0.2,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ADSCENT_")}
    named = {f"ADSCENT_{name}": str(value) for name, value in own.items()}
    return {
        **inherited,
        **named,
        "DATABASE_URL": str(settings.database_url),
        "OMP_NUM_THREADS": "1",
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _acknowledging(found: Deployment) -> list[str]:
    state = {"state": "active"}
    return list(found.call("PATCH", "/v1/ads/1", json=state)["acknowledged"])


def eventually(condition: Callable[[], object], seconds: float) -> None:
    """Wait until it holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.1)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless. Skips the test where there is none."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed: `apt-get install chromium`")
    with sync_playwright() as playwright:
        # As root it has no sandbox of its own; what it opens here is ours.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@dataclass
class Visit:
    """Pages open in one browser profile, and what went wrong in them."""

    context: BrowserContext
    base: str
    page: Page
    outside: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def log_in(self, secret: str) -> None:
        """With this key, from the login page to the overview."""
        self.page.goto(f"{self.base}/login")
        self.page.get_by_label("API key").fill(secret)
        self.page.get_by_role("button", name="Log in").click()

    def open(self, path: str) -> None:
        """A page, once it is connected and live."""
        self.page.goto(self.base + path)
        self.page.wait_for_function("window.did_handshake === true")

    def press(self, name: str) -> None:
        """The button of this name."""
        self.page.get_by_role("button", name=name).first.click()

    def confirm(self, name: str) -> str:
        """Press the button of the open question; what is told afterwards."""
        question = self.page.get_by_role("alertdialog")
        question.get_by_role("button", name=name, exact=True).click()
        question.get_by_role("button", name="Close").wait_for()
        told = question.inner_text()
        self.page.keyboard.press("Escape")
        question.wait_for(state="hidden")
        return told


@contextmanager
def visiting(browser: Browser, base: str, **given: Any) -> Iterator[Visit]:
    """A fresh profile; `given` are the browser's: its size, its colour scheme."""
    context = browser.new_context(**{"viewport": WIDE, **given})
    context.set_default_timeout(20_000)
    visit = Visit(context, base, context.new_page())

    def requested(request: BrowserRequest) -> None:
        if not request.url.startswith((base, base.replace("http", "ws"), "data:", "blob:")):
            visit.outside.append(request.url)

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            visit.faults.append(message.text)

    visit.page.on("request", requested)
    visit.page.on("websocket", lambda socket: requested(socket))
    visit.page.on("console", said)
    visit.page.on("pageerror", lambda error: visit.faults.append(str(error)))
    yield visit
    context.close()
