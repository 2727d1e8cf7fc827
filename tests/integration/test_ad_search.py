"""Ads are found by what people remember of them; the lag of training is by the database's clock."""

from __future__ import annotations

import pytest

from app.storage.ad_search import ads_of, find_ad, search_ads
from app.storage.catalog import Catalog
from app.storage.chunks import record_horizon
from app.storage.engine import Database
from app.storage.errors import NotFound
from app.storage.lag import lag
from models.types import Ad, Advertiser, Campaign

pytestmark = pytest.mark.anyio


@pytest.fixture
async def stocked(database: Database) -> Database:
    """Three ads: two shoes of one advertiser, a hat of another whose campaign is paused."""
    advertisers = [Advertiser(1, name="Shoes Ltd"), Advertiser(2, name="Hats")]
    campaigns = [Campaign(11, 1, name="Spring"), Campaign(12, 2, state="paused", name="50% off")]
    titles = {21: (11, "Run"), 22: (11, "Walk_fast"), 23: (12, "Sun hat")}
    ads = [
        Ad(number, campaign, campaign // 11, 1000, creative={"title": title})
        for number, (campaign, title) in titles.items()
    ]
    await Catalog(database).import_catalog(advertisers, campaigns, ads, "test")
    return database


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [21, 22, 23]),
        ("22", [22]),
        ("11", [21, 22]),
        ("2", [23]),
        ("SUN", [23]),
        ("spring", [21, 22]),
        ("hats", [23]),
        ("%", [23]),
        ("_", [22]),
        ("nothing", []),
        ("9" * 30, []),
        ("²", []),
    ],
)
async def test_ads_are_found(stocked: Database, text: str, found: list[int]) -> None:
    """By their id, that of their campaign or advertiser, and words, whatever the case."""
    assert [one.ad.id for one in await search_ads(stocked, text, None, 10)] == found


async def test_a_search_is_narrowed(stocked: Database) -> None:
    """By state and to a number, the lowest ids first."""
    await Catalog(stocked).patch_ad(21, "test", state="paused")
    assert [one.ad.id for one in await search_ads(stocked, "", "paused", 10)] == [21]
    assert [one.ad.id for one in await search_ads(stocked, "", None, 2)] == [21, 22]


async def test_an_ad_comes_with_what_holds_it_back(stocked: Database) -> None:
    """The names and states of its campaign and advertiser."""
    found = await find_ad(stocked, 23)
    assert (found.campaign_name, found.campaign_state) == ("50% off", "paused")
    assert (found.advertiser_name, found.advertiser_state) == ("Hats", "active")
    assert await ads_of(stocked, [99, 23]) == [found]
    with pytest.raises(NotFound):
        await find_ad(stocked, 99)


async def test_the_lag_is_since_the_last_horizon(database: Database) -> None:
    """None before the first one."""
    assert (await lag(database)).horizon_s is None
    await record_horizon(database)
    found = await lag(database)
    assert found.horizon_s is not None
    assert 0 <= found.horizon_s < 60
