"""Placements are part of the catalog: versioned, audited, told to every worker."""

from __future__ import annotations

import pytest

from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.errors import ConstraintBroken, NotFound
from app.storage.placements import get_placement, list_placements, put_placement
from models.types import Ad, Advertiser, Campaign, Placement

pytestmark = pytest.mark.anyio


@pytest.fixture
async def catalog(database: Database) -> Catalog:
    """Ads 1 and 2 of one campaign, at version 1."""
    found = Catalog(database)
    ads = [Ad(id=key, campaign_id=1, advertiser_id=1, bid_micros=5) for key in (1, 2)]
    await found.import_catalog([Advertiser(1)], [Campaign(1, 1)], ads, "test")
    return found


async def test_a_placement_is_a_change_of_the_catalog(catalog: Catalog, database: Database) -> None:
    """It takes the next version and is in the changes since the one before, alone."""
    stored = await put_placement(database, Placement("home", 7, (2, 1)), "ann")
    assert stored == Placement("home", 7, (2, 1), version=2)
    changes = await catalog.changes_since(1)
    assert (changes.version, changes.placements, changes.ads) == (2, (stored,), ())
    assert (await catalog.changes_since(0)).placements == (stored,)
    assert (await catalog.changes_since(2)).placements == ()
    assert await get_placement(database, "home") == stored


async def test_names_are_listed_by_their_bytes(catalog: Catalog, database: Database) -> None:
    """The same order under every locale, page after page."""
    assert await catalog.version() == 1
    for name in ("b", "a/z", "B", "a"):
        await put_placement(database, Placement(name), "ann")
    names = [placement.name for placement in await list_placements(database, 9, None)]
    assert names == ["B", "a", "a/z", "b"]
    after = await list_placements(database, 1, "a")
    assert [placement.name for placement in after] == ["a/z"]


async def test_a_failed_change_leaves_the_version(catalog: Catalog, database: Database) -> None:
    """An unknown house ad is named, and nothing is stored."""
    with pytest.raises(ConstraintBroken, match="3"):
        await put_placement(database, Placement("home", 0, (1, 3)), "ann")
    assert await catalog.version() == 1
    with pytest.raises(NotFound):
        await get_placement(database, "home")
