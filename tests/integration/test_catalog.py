"""The catalog keeps what it is given, versions every change and tells everyone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from app.storage.audit import list_audit
from app.storage.catalog import Catalog
from app.storage.engine import CHANNEL, Database
from app.storage.errors import Conflict, ConstraintBroken, NotFound
from models.targeting import parse_targeting
from models.types import Ad, Advertiser, Campaign
from tests.integration.making import eventually

pytestmark = pytest.mark.anyio

AD = Ad(
    id=42,
    campaign_id=7,
    advertiser_id=1,
    bid_micros=350_000,
    features={"category": ["shoes", "running"], "format": "card", "price": 9.5},
    targeting=parse_targeting({"all": [{"user.geo": ["us"]}, {"user.hour": {"min": 8}}]}),
    flight_start_ms=1_795_305_600_123,
    flight_end_ms=1_795_392_000_000,
    creative={"title": "Läufer", "landing_url": "https://example.com"},
)


@pytest.fixture
async def catalog(database: Database) -> Catalog:
    """A catalog with advertisers 1 and 2 and their campaigns 7 and 8."""
    found = Catalog(database)
    await found.import_catalog(
        [Advertiser(1, name="One"), Advertiser(2)], [Campaign(7, 1), Campaign(8, 2)], [], "test"
    )
    return found


async def test_ad_comes_back_as_it_was_put(catalog: Catalog) -> None:
    """Every field survives; the version is that of the change."""
    put = await catalog.put_ad(AD, "ann")
    assert put == replace(AD, version=2, features_version=2)
    assert await catalog.get_ad(42) == put


async def test_advertiser_of_an_ad_is_that_of_its_campaign(catalog: Catalog) -> None:
    """What the given ad says about its advertiser does not count."""
    assert (await catalog.put_ad(replace(AD, advertiser_id=2), "ann")).advertiser_id == 1


async def test_patch_changes_only_what_is_given(catalog: Catalog) -> None:
    """A pause keeps the bid, a new bid keeps the pause, and neither makes the features new."""
    await catalog.put_ad(AD, "ann")
    await catalog.patch_ad(42, "ann", state="paused")
    patched = await catalog.patch_ad(42, "ann", bid_micros=5)
    expected = replace(AD, state="paused", bid_micros=5, version=4, features_version=2)
    assert patched == expected


async def test_same_features_keep_their_version(catalog: Catalog) -> None:
    """A replacement with the same features, given in another order, does not outdate an index."""
    await catalog.put_ad(AD, "ann")
    turned = dict(reversed(AD.features.items()))
    put = await catalog.put_ad(replace(AD, features=turned, bid_micros=1), "ann")
    assert (put.version, put.features_version) == (3, 2)


@pytest.mark.parametrize(
    "changed",
    [{"features": {"format": "video"}}, {"campaign_id": 8}, {"bid_type": "cpm"}],
    ids=["features", "campaign", "bid type"],
)
async def test_new_features_have_a_new_version(
    catalog: Catalog, changed: dict[str, object]
) -> None:
    """What an index holds of the ad is stale once features, campaign or kind of bid change."""
    await catalog.put_ad(AD, "ann")
    put = await catalog.put_ad(replace(AD, **changed), "ann")  # type: ignore[arg-type]
    assert (put.version, put.features_version) == (3, 3)


async def test_moved_campaign_renews_its_ads(catalog: Catalog) -> None:
    """The advertiser is a feature of the ad, so moving the campaign changes its ads too."""
    await catalog.put_ad(AD, "ann")
    await catalog.put_campaign(Campaign(7, 2), "ann")
    ad = await catalog.get_ad(42)
    assert (ad.advertiser_id, ad.version, ad.features_version) == (2, 3, 3)
    assert [ad.id for ad in (await catalog.changes_since(2)).ads] == [42]


async def test_retired_is_final(catalog: Catalog) -> None:
    """Neither a patch, a replacement nor an import makes a retired ad live; nothing changes."""
    await catalog.put_ad(AD, "ann")
    retired = await catalog.patch_ad(42, "ann", state="retired")
    with pytest.raises(Conflict, match="final"):
        await catalog.patch_ad(42, "ann", state="active")
    with pytest.raises(Conflict, match="final"):
        await catalog.put_ad(AD, "ann")
    with pytest.raises(Conflict, match="final"):
        await catalog.import_catalog([], [], [AD], "ann")
    assert await catalog.get_ad(42) == retired
    assert await catalog.version() == retired.version


async def test_retired_ad_keeps_its_bid(catalog: Catalog) -> None:
    """A bid is no more changed than a state; naming the bid that it has is no change."""
    await catalog.put_ad(AD, "ann")
    retired = await catalog.patch_ad(42, "ann", state="retired")
    with pytest.raises(Conflict, match=r"bid_micros.*final"):
        await catalog.patch_ad(42, "ann", bid_micros=AD.bid_micros + 1)
    assert await catalog.get_ad(42) == retired
    repeated = await catalog.patch_ad(42, "ann", state="retired", bid_micros=AD.bid_micros)
    assert repeated.bid_micros == AD.bid_micros


async def test_retiring_twice_is_harmless(catalog: Catalog) -> None:
    """A repeated retirement is no conflict."""
    await catalog.patch_campaign(7, "ann", state="retired")
    assert (await catalog.patch_campaign(7, "ann", state="retired")).state == "retired"


async def test_unknown_ids_are_named(catalog: Catalog) -> None:
    """Reading or patching what is not there says which id."""
    for call in (
        catalog.get_ad(9),
        catalog.get_campaign(9),
        catalog.get_advertiser(9),
        catalog.patch_ad(9, "ann", state="paused"),
    ):
        with pytest.raises(NotFound, match="9"):
            await call


@pytest.mark.parametrize(
    ("ad", "field"),
    [
        (replace(AD, campaign_id=99), "campaign_id"),
        (replace(AD, bid_micros=0), "bid_micros"),
        (replace(AD, id=2**53), "id"),
        (replace(AD, flight_end_ms=AD.flight_start_ms), "flight"),
        (replace(AD, state="lost"), "state"),  # type: ignore[arg-type]
    ],
)
async def test_broken_constraint_is_named(catalog: Catalog, ad: Ad, field: str) -> None:
    """The database's own checks hold for whoever writes, and the error names the field."""
    with pytest.raises(ConstraintBroken) as caught:
        await catalog.put_ad(ad, "ann")
    assert caught.value.field == field
    assert await catalog.version() == 1


async def test_text_that_the_database_cannot_keep_is_refused(catalog: Catalog) -> None:
    """A NUL in a name is the caller's mistake, not a fault of the server."""
    with pytest.raises(ConstraintBroken):
        await catalog.put_advertiser(Advertiser(1, name="a\0b"), "ann")


async def test_pages_follow_each_other(catalog: Catalog) -> None:
    """Pages by id hold every ad once, and filters hold on each page."""
    ads = [replace(AD, id=n, campaign_id=7 + n % 2) for n in range(1, 8)]
    await catalog.import_catalog([], [], ads, "ann")
    await catalog.patch_ad(4, "ann", state="paused")
    first = await catalog.list_ads(4)
    rest = await catalog.list_ads(4, after=first[-1].id)
    assert [ad.id for ad in first + rest] == [1, 2, 3, 4, 5, 6, 7]
    assert [ad.id for ad in await catalog.list_ads(9, advertiser_id=2)] == [1, 3, 5, 7]
    assert [ad.id for ad in await catalog.list_ads(9, campaign_id=7, state="active")] == [2, 6]
    assert [one.id for one in await catalog.list_campaigns(9, advertiser_id=2)] == [8]
    assert [one.id for one in await catalog.list_advertisers(9, after=1, state="active")] == [2]


async def test_import_is_one_version_and_all_or_nothing(catalog: Catalog) -> None:
    """A mistake in the last row undoes the first; a good import is one step."""
    ads = [replace(AD, id=n) for n in range(1, 2001)]
    with pytest.raises(ConstraintBroken):
        await catalog.import_catalog([], [], [*ads, replace(AD, id=2001, bid_micros=-1)], "ann")
    assert await catalog.list_ads(1) == []
    assert await catalog.import_catalog([], [], ads, "ann") == 2
    changes = await catalog.changes_since(1)
    assert (changes.version, len(changes.ads), changes.campaigns) == (2, 2000, ())


async def test_import_audits_what_it_changes(catalog: Catalog, database: Database) -> None:
    """Both states of whatever differs, none of what is the same, and the counts at the end."""
    await catalog.import_catalog([], [], [AD, replace(AD, id=43)], "ann")
    old = await catalog.get_campaign(7)
    changed = [replace(AD, bid_micros=5, state="paused"), replace(AD, id=43), replace(AD, id=44)]
    await catalog.import_catalog([], [replace(old, name="new")], changed, "bob")
    rows = [row for row in await list_audit(database, 9) if row.actor == "bob"]
    assert [row.subject for row in rows[1:]] == ["ad:42", "ad:44", "campaign:7"]
    assert (rows[0].subject, rows[0].after) == (
        "catalog",
        {"advertisers": 0, "campaigns": 1, "ads": 3},
    )
    before, after = rows[1].before, rows[1].after
    assert before is not None
    assert after is not None
    assert (before["bid_micros"], before["state"]) == (AD.bid_micros, AD.state)
    assert (after["bid_micros"], after["state"]) == (5, "paused")
    assert rows[2].before is None


async def test_import_with_one_id_twice_is_refused(catalog: Catalog) -> None:
    """Which of the two would count is not for us to guess."""
    with pytest.raises(Conflict, match="twice"):
        await catalog.import_catalog([], [], [AD, replace(AD, bid_micros=1)], "ann")


async def test_changes_of_many_ads_are_read_whole(catalog: Catalog) -> None:
    """More changes than are read at once come all, each once, and are counted alike."""
    many = [replace(AD, id=number) for number in range(1, 351)]
    await catalog.import_catalog([], [], many, "test")
    changes = await catalog.changes_since(1)
    assert sorted(ad.id for ad in changes.ads) == [ad.id for ad in many]
    assert (await catalog.count_since(1), await catalog.count_since(2)) == (350, 0)


async def test_changes_since_holds_exactly_the_newer_rows(catalog: Catalog) -> None:
    """Rows of later versions and no others; nothing when nothing is newer."""
    await catalog.put_ad(AD, "ann")
    await catalog.patch_advertiser(2, "ann", state="paused")
    changes = await catalog.changes_since(2)
    assert (changes.version, changes.ads, changes.campaigns) == (3, (), ())
    assert [one.state for one in changes.advertisers] == ["paused"]
    assert (await catalog.changes_since(3)).advertisers == ()
    everything = await catalog.changes_since(0)
    assert [len(everything.advertisers), len(everything.campaigns), len(everything.ads)] == [
        2,
        2,
        1,
    ]


async def test_versions_become_visible_in_order(catalog: Catalog) -> None:
    """Under concurrent changes a reader that follows the versions misses none."""
    await catalog.put_ad(AD, "ann")
    seen: dict[int, int] = {}

    async def follow() -> None:
        version = 2
        while version < 22:
            changes = await catalog.changes_since(version)
            seen.update({ad.version: ad.bid_micros for ad in changes.ads})
            assert all(ad.version > version for ad in changes.ads)
            version = changes.version

    async def change(bid: int) -> None:
        await catalog.patch_ad(42, "ann", bid_micros=bid)

    await asyncio.gather(follow(), *(change(bid) for bid in range(1, 21)))
    assert max(seen) == 22


async def test_change_is_audited_and_told(catalog: Catalog, database: Database) -> None:
    """The audit has actor and both states; listeners hear the version after the commit."""
    heard: list[dict[str, object]] = []
    async with database.session() as listener:
        await listener.add_listener(CHANNEL, lambda *given: heard.append(json.loads(given[3])))
        await catalog.put_ad(AD, "ann")
        await catalog.patch_ad(42, "bob", state="paused")
        await eventually(lambda: len(heard) == 2)
    assert heard == [{"kind": "catalog", "version": 2}, {"kind": "catalog", "version": 3}]
    [row] = await list_audit(database, 1)
    assert (row.actor, row.action, row.subject) == ("bob", "patch", "ad:42")
    assert row.before is not None
    assert row.after is not None
    assert (row.before["state"], row.after["state"]) == ("active", "paused")
    [created] = [row for row in await list_audit(database, 9, subject="ad:42") if not row.before]
    assert created.actor == "ann"


async def test_refused_change_leaves_no_trace(catalog: Catalog, database: Database) -> None:
    """A change that breaks a rule has no version and no audit row."""
    before = await list_audit(database, 9)
    with pytest.raises(ConstraintBroken):
        await catalog.put_ad(replace(AD, bid_micros=0), "ann")
    assert await list_audit(database, 9) == before
