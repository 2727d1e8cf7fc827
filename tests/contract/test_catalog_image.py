"""A worker starts from the catalog beside the snapshot, or without it, and decides alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.serving.image import FILE
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from tests.contract.conftest import eventually, promote_genesis, running, secrets_of

pytestmark = pytest.mark.anyio
REQUEST = {"user": {"geo": "us"}, "slots": 50, "per_advertiser": 50}


@pytest.fixture
async def image(database: Database, settings: Settings, catalog: Catalog) -> Path:
    """The image beside the genesis snapshot, of a catalog that has changed since."""
    await promote_genesis(database, settings, catalog)
    await catalog.patch_ad(9, "test", state="paused")
    await catalog.patch_ad(1, "test", bid_micros=5_000_000)
    return next(settings.snapshot_store.glob(f"*/{FILE}"))


async def decided(database: Database, settings: Settings) -> tuple[bool, list[dict[str, Any]]]:
    """Whether a new worker maps the catalog, and its ads with prices, without their tokens."""
    secrets = await secrets_of(database)
    async with running(settings) as app:
        await eventually(lambda: app.state.services.state.bundle is not None)
        creatives = app.state.services.state.bundle.live.columns.creatives
        headers = {"Authorization": f"Bearer {secrets['score']}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            answer = await client.post("/v1/decisions", json=REQUEST)
    assert answer.status_code == 200, answer.text
    ads = [{key: ad[key] for key in ad if key != "token"} for ad in answer.json()["ads"]]
    return not creatives.starts.flags.owndata, ads


def missing(image: Path) -> None:
    """Nothing is there."""
    image.unlink()


def altered(image: Path) -> None:
    """One byte of an array is another."""
    content = bytearray(image.read_bytes())
    content[-100] ^= 1
    image.write_bytes(bytes(content))


def cut(image: Path) -> None:
    """The end is missing."""
    image.write_bytes(image.read_bytes()[:-64])


@pytest.mark.usefixtures("image")
async def test_changes_since_the_image_hold(database: Database, settings: Settings) -> None:
    """A pause and a bid that came after the image decide from the first request on."""
    is_mapped, ads = await decided(database, settings)
    assert is_mapped
    ids = [ad["ad_id"] for ad in ads]
    assert (ids[0], len(ids)) == (1, 9)
    assert 9 not in ids


@pytest.mark.parametrize("damage", [missing, altered, cut])
async def test_a_damaged_image_costs_only_time(
    database: Database, settings: Settings, image: Path, damage: Callable[[Path], None]
) -> None:
    """Without a sound image the worker reads the database and decides the same."""
    _, ads = await decided(database, settings)
    damage(image)
    assert await decided(database, settings) == (False, ads)
