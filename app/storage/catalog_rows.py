"""Between the catalog's dataclasses and its rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.storage.engine import at, maybe, ms_of
from app.storage.tables import ads, advertisers, campaigns
from models.targeting import parse_targeting, render_targeting
from models.types import Ad, Advertiser, Campaign, Schedule

ADS = sa.select(ads, campaigns.c.advertiser_id).join_from(
    ads, campaigns, ads.c.campaign_id == campaigns.c.id
)
"""Ads with the advertiser of their campaign."""
_JSON = tuple(column.name for column in ads.c if isinstance(column.type, JSONB))


def advertiser_row(advertiser: Advertiser) -> dict[str, Any]:
    """The columns of an advertiser, without its version."""
    return {"id": advertiser.id, "state": advertiser.state, "name": advertiser.name}


def campaign_row(campaign: Campaign) -> dict[str, Any]:
    """The columns of a campaign, without its version."""
    return {
        "id": campaign.id,
        "advertiser_id": campaign.advertiser_id,
        "state": campaign.state,
        "name": campaign.name,
    }


def ad_row(ad: Ad) -> dict[str, Any]:
    """The columns of an ad, without its versions. Its advertiser is that of its campaign."""
    return {
        "id": ad.id,
        "campaign_id": ad.campaign_id,
        "bid_micros": ad.bid_micros,
        "bid_type": ad.bid_type,
        "state": ad.state,
        "features": dict(ad.features),
        "targeting": render_targeting(ad.targeting),
        "flight_start": maybe(at, ad.flight_start_ms),
        "flight_end": maybe(at, ad.flight_end_ms),
        "creative": dict(ad.creative),
        "schedule": None if ad.schedule is None else msgspec.to_builtins(ad.schedule),
    }


def advertiser_of(row: Any) -> Advertiser:
    """An advertiser from its row."""
    return Advertiser(row.id, row.state, row.name, row.version)


def campaign_of(row: Any) -> Campaign:
    """A campaign from its row."""
    return Campaign(row.id, row.advertiser_id, row.state, row.name, row.version)


def ad_of(row: Any) -> Ad:
    """An ad from a row of `ADS`."""
    return Ad(
        id=row.id,
        campaign_id=row.campaign_id,
        advertiser_id=row.advertiser_id,
        bid_micros=row.bid_micros,
        bid_type=row.bid_type,
        state=row.state,
        features=row.features,
        targeting=parse_targeting(row.targeting),
        flight_start_ms=maybe(ms_of, row.flight_start),
        flight_end_ms=maybe(ms_of, row.flight_end),
        creative=row.creative,
        version=row.version,
        features_version=row.features_version,
        schedule=None if row.schedule is None else msgspec.convert(row.schedule, Schedule),
    )


def decoded(row: Any) -> SimpleNamespace:
    """A row of `ads` as the driver itself gives it, its JSON decoded."""
    fields = dict(row.items())
    for name in _JSON:
        if fields[name] is not None:
            fields[name] = msgspec.json.decode(fields[name])
    return SimpleNamespace(**fields)


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the audit keeps it: times as milliseconds."""
    return {key: ms_of(value) if hasattr(value, "tzinfo") else value for key, value in row.items()}


NAMES: dict[sa.Table, str] = {ads: "ad", campaigns: "campaign", advertisers: "advertiser"}
"""What a row of each table is called."""
