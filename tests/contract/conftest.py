"""The real application over a real PostgreSQL, with a small catalog and a genesis snapshot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.ids import uuid7
from app.main import create_app
from app.settings import Settings
from app.storage import keys, snapshots
from app.storage.catalog import Catalog
from app.storage.engine import Database
from models import snapshot as snapshot_folder
from models.cycle import genesis_snapshot
from models.features import Encoder, load_schema
from models.types import Ad, Advertiser, Campaign

FEATURES = """
version = 1
[user.geo]
kind = "categorical"
[user.age]
kind = "numeric"
edges = [18, 30, 50]
[ad.creative]
kind = "categorical"
[ad.campaign]
kind = "categorical"
[ad.category]
kind = "multi"
"""
SCOPES = ("score", "ingest", "admin")
LANDING = {"title": "An ad", "landing_url": "https://example.com"}


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass
class Api:
    """A running application and clients that hold a key for one scope each."""

    app: FastAPI
    database: Database
    settings: Settings
    secrets: dict[str, str]
    stack: AsyncExitStack
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def client(self, scope: str = "") -> httpx.AsyncClient:
        """A client with the key of this scope; without a key for no scope."""
        if scope not in self.clients:
            headers = {"Authorization": f"Bearer {self.secrets[scope]}"} if scope else {}
            self.clients[scope] = httpx.AsyncClient(
                transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
                base_url="http://test",
                headers=headers,
            )
        return self.clients[scope]

    async def call(self, scope: str, method: str, path: str, **given: Any) -> httpx.Response:
        """One request with the key of a scope."""
        return await self.client(scope).request(method, path, **given)

    async def ready(self) -> None:
        """Wait until the worker has a warm bundle."""
        await eventually(lambda: self.app.state.services.state.bundle is not None)


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the condition is not an event of this loop
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application within its lifespan."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a deployment in a folder of its own."""
    return Settings(
        home=tmp_path,
        features=write_features(tmp_path),
        database_url=database_url,
        catalog_poll_s=0.2,
        max_body_bytes=50_000,
        exploration_share=0.0,
    )


@pytest.fixture
async def catalog(database: Database) -> Catalog:
    """Two campaigns of one advertiser; ads 1 to 9 of the first, ad 10 of the second."""
    found = Catalog(database)
    await fill_catalog(found)
    return found


def write_features(folder: Path) -> Path:
    """Write the feature schema and return where it is."""
    path = folder / "features.toml"
    path.write_text(FEATURES)
    return path


async def fill_catalog(catalog: Catalog) -> None:
    """Import the small catalog."""
    ads = [_ad(number, 1) for number in range(1, 10)] + [_ad(10, 2)]
    await catalog.import_catalog(
        [Advertiser(1, name="Shoes Ltd")], [Campaign(1, 1, name="a"), Campaign(2, 1)], ads, "test"
    )


def _ad(number: int, campaign: int) -> Ad:
    return Ad(
        id=number,
        campaign_id=campaign,
        advertiser_id=1,
        bid_micros=100_000 * number,
        features={"category": ["shoes"]},
        creative=LANDING,
    )


async def secrets_of(database: Database) -> dict[str, str]:
    """A key for each scope."""
    found = {}
    for scope in SCOPES:
        _, found[scope] = await keys.create_api_key(database, f"test {scope}", [scope], now_ms())
    return found


async def promote_genesis(database: Database, settings: Settings, catalog: Catalog) -> None:
    """Write and record the first snapshot, as the jobs process does."""
    from jobs.catalog_ads import ad_set
    from jobs.catalog_image import image_of

    schema = load_schema(settings.features)
    changes = await catalog.changes_since(0)
    made = genesis_snapshot(
        schema, ad_set(changes.ads, schema), snapshot_id=uuid7(now_ms()), now_ms=now_ms()
    )
    image = image_of(changes, schema)
    sealed = snapshot_folder.write(settings.snapshot_store, made, image)
    await snapshots.record_genesis(database, sealed)


@pytest.fixture
async def api(database: Database, settings: Settings, catalog: Catalog) -> AsyncIterator[Api]:
    """The application, ready."""
    secrets = await secrets_of(database)
    await promote_genesis(database, settings, catalog)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(running(settings))
        found = Api(app, database, settings, secrets, stack)
        await found.ready()
        yield found
        for client in found.clients.values():
            await client.aclose()


@pytest.fixture
def encoder(settings: Settings) -> Encoder:
    """The encoder of the deployment's schema."""
    return Encoder(load_schema(settings.features))
