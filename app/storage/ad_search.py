"""Finding ads by what people remember of them: an id, words of a title or a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from app.storage.catalog_rows import ad_of
from app.storage.engine import Database
from app.storage.errors import NotFound
from app.storage.tables import ads, advertisers, campaigns
from models.types import MAX_ID, Ad, State


@dataclass(frozen=True, slots=True)
class FoundAd:
    """An ad with the names and states of what it belongs to."""

    ad: Ad
    campaign_name: str
    campaign_state: State
    advertiser_name: str
    advertiser_state: State


_FOUND = (
    sa.select(
        ads,
        campaigns.c.advertiser_id,
        campaigns.c.name.label("campaign_name"),
        campaigns.c.state.label("campaign_state"),
        advertisers.c.name.label("advertiser_name"),
        advertisers.c.state.label("advertiser_state"),
    )
    .join_from(ads, campaigns, ads.c.campaign_id == campaigns.c.id)
    .join(advertisers, campaigns.c.advertiser_id == advertisers.c.id)
)


async def search_ads(
    database: Database, text: str, state: State | None, limit: int
) -> list[FoundAd]:
    """At most `limit` ads by ascending id whose id, campaign's or advertiser's id is `text`, or
    that have it in their title or in the name of either; all of them for no text.

    Words are looked for in the whole catalog: some tenths of a second for 300,000 ads.
    """
    query = _FOUND.order_by(ads.c.id).limit(limit)
    if state is not None:
        query = query.where(ads.c.state == state)
    if text:
        query = query.where(sa.or_(*_matches(text)))
    async with database.read() as connection:
        return [_found(row) for row in await connection.execute(query)]


async def ads_of(database: Database, ids: Sequence[int]) -> list[FoundAd]:
    """Those of these ads that there are, by ascending id."""
    query = _FOUND.where(ads.c.id.in_(ids)).order_by(ads.c.id)
    async with database.read() as connection:
        return [_found(row) for row in await connection.execute(query)]


async def find_ad(database: Database, ad_id: int) -> FoundAd:
    """One ad. Raises `NotFound`."""
    async with database.read() as connection:
        row = (await connection.execute(_FOUND.where(ads.c.id == ad_id))).one_or_none()
    if row is None:
        raise NotFound("ad", ad_id)
    return _found(row)


def _matches(text: str) -> list[sa.ColumnElement[bool]]:
    texts = (ads.c.creative["title"].astext, campaigns.c.name, advertisers.c.name)
    found: list[sa.ColumnElement[bool]] = [
        column.icontains(text, autoescape=True) for column in texts
    ]
    if text.isascii() and text.isdigit() and int(text) <= MAX_ID:
        ids = (ads.c.id, ads.c.campaign_id, campaigns.c.advertiser_id)
        found += [column == int(text) for column in ids]
    return found


def _found(row: sa.Row[tuple[object, ...]]) -> FoundAd:
    return FoundAd(
        ad_of(row),
        row.campaign_name,
        row.campaign_state,
        row.advertiser_name,
        row.advertiser_state,
    )
