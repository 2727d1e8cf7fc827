"""The image of a catalog: what a worker maps equals what it would have made of the database."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.bitmaps import among
from app.serving.eligibility import ACTIVE
from app.serving.image import FILE, Image
from app.serving.items import Items
from app.serving.live import LiveCatalog
from models.errors import SnapshotCorrupt
from models.types import Ad, Campaign, CatalogChanges, Clause, Placement, Targeting
from tests.unit import market

USED = market.model(1)
RULES = Targeting(
    all=(Clause("user.hour", minimum=8.0, maximum=20.0),),
    any=(Clause("user.geo", ("us",)), Clause("user.geo", ("ca",))),
    none=(Clause("user.hour", ("12",)),),
)
USERS: list[market.User] = [{"geo": geo, "hour": hour} for geo in market.GEO for hour in (3, 9, 12)]


def whole(ads: list[Ad]) -> CatalogChanges:
    """A whole catalog with these ads, a paused campaign and a placement."""
    campaigns = [one for one in market.campaigns() if one.id != 3]
    paused = Campaign(3, 1, "paused")
    placements = (Placement("home", 5000, (1, 2), 4),)
    return market.changes(
        4,
        ads,
        campaigns=(*campaigns, paused),
        advertisers=market.advertisers(),
        placements=placements,
    )


def written(folder: Path, changes: CatalogChanges) -> Image:
    """The image of a catalog, as another process reads it."""
    Image.of(changes, market.ENCODER).write(folder)
    return Image.read(folder)


def over(image: Image, ads: list[Ad]) -> LiveCatalog:
    """The image over an index of those of the ads that are not retired."""
    index = market.index_of([ad for ad in ads if ad.state != "retired"], USED)
    given_ = (image.version, image.columns, image.placements)
    return LiveCatalog.over(*given_, index, USED, market.ENCODER)


def loaded(changes: CatalogChanges, ads: list[Ad]) -> LiveCatalog:
    """The catalog from its rows in the database, over the same index."""
    index = market.index_of([ad for ad in ads if ad.state != "retired"], USED)
    return LiveCatalog.load(changes, index, USED, market.ENCODER)


def seen(live: LiveCatalog) -> dict[int, tuple[object, ...]]:
    """Everything about each ad, by its id, and which users may see it."""
    columns, rows = live.columns, np.arange(len(live))
    masks = [live.eligibility.mask(user, market.NOW) for user in USERS]
    plain = [getattr(columns, item.name) for item in fields(columns)]
    arrays = [column for column in plain if isinstance(column, np.ndarray)]
    return {
        int(columns.ad_ids[row]): (
            *(column[row].item() for column in arrays),
            *(column[row] for column in plain if isinstance(column, Items)),
            *(bool(among(mask, rows[row : row + 1])[0]) for mask in masks),
        )
        for row in range(len(live))
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 1000))
def test_the_image_holds_the_catalog(count: int, seed: int) -> None:
    """States, bids, flights, features, creatives, targeting and placements come back as they were.

    So it is for ads that are targeted by ranges and by several clauses.
    """
    ads = [*market.random_ads(count, seed), market.ad(420, targeting=RULES)]
    with TemporaryDirectory() as folder:
        image = written(Path(folder), whole(ads))
    mapped, fresh = over(image, ads), loaded(whole(ads), ads)
    assert seen(mapped) == seen(fresh)
    assert (mapped.version, mapped.placements) == (fresh.version, fresh.placements)
    states = {key: state for key, state in fresh.columns.campaign_states.items() if state != ACTIVE}
    assert mapped.columns.campaign_states == states


def test_a_change_after_the_image_is_applied_to_it(tmp_path: Path) -> None:
    """A mapped catalog follows changes as any other does, and the mapped file stays as it is."""
    ads = market.random_ads(80, 3)
    before = written(tmp_path, whole(ads))
    content = (tmp_path / FILE).read_bytes()
    changed = market.changes(5, [market.ad(500), replace(ads[7], targeting=RULES, bid_micros=9)])
    assert seen(over(before, ads).apply(changed)) == seen(loaded(whole(ads), ads).apply(changed))
    assert (tmp_path / FILE).read_bytes() == content


def test_a_mapped_catalog_is_shared_not_copied(tmp_path: Path) -> None:
    """Over its own index every column of the image is used as it lies in the file."""
    ads = [market.ad(key) for key in range(1, 60)]
    image = written(tmp_path, whole(ads))
    columns = over(image, ads).columns
    assert columns.bid_micros is image.columns.bid_micros
    assert columns.creatives.base is image.columns.creatives.base
    assert not columns.bid_micros.flags.owndata
    assert not columns.creatives.base.flags.writeable


@pytest.mark.parametrize("length", [0, 5, 16, 200, -1])
def test_a_cut_image_is_refused(tmp_path: Path, length: int) -> None:
    """A file that lost its end, wherever it was cut, is a fault with a name."""
    written(tmp_path, whole([market.ad(key) for key in range(1, 30)]))
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(SnapshotCorrupt, match=FILE):
        Image.read(tmp_path)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    """A folder without one says so by name."""
    with pytest.raises(SnapshotCorrupt, match=FILE):
        Image.read(tmp_path)


def test_an_empty_catalog_has_an_image(tmp_path: Path) -> None:
    """A new deployment has no ads, and its image is read like any other."""
    image = written(tmp_path, CatalogChanges(1))
    assert (image.version, len(image.columns), image.placements) == (1, 0, ())
