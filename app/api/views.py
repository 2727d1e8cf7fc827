"""What the catalog's calls answer: ads, campaigns, advertisers, placements, and changes of them."""

from __future__ import annotations

from app.api.schemas import Answer, FlightBody, TargetingBody
from models.types import BidType, State


class AdView(Answer, frozen=True):
    """An ad as the catalog holds it."""

    id: int
    campaign_id: int
    advertiser_id: int
    state: State
    bid_type: BidType
    bid_micros: int
    features: dict[str, str | int | float | bool | list[str | int | float | bool] | None]
    targeting: TargetingBody
    flight: FlightBody
    creative: dict[str, str]
    version: int


class CampaignView(Answer, frozen=True):
    """A campaign as the catalog holds it."""

    id: int
    advertiser_id: int
    state: State
    name: str
    version: int


class AdvertiserView(Answer, frozen=True):
    """An advertiser as the catalog holds it."""

    id: int
    state: State
    name: str
    version: int


class PlacementView(Answer, frozen=True):
    """A placement as the catalog holds it."""

    name: str
    floor_micros: int
    house_ads: list[int]
    version: int


class PlacementChange(Answer, frozen=True):
    """A committed change: it holds on every worker of `acknowledged`, not yet on `pending`."""

    placement: PlacementView
    catalog_version: int
    acknowledged: list[str]
    pending: list[str]


class AdChange(Answer, frozen=True):
    """A committed change: it holds on every worker of `acknowledged`, not yet on `pending`."""

    ad: AdView
    catalog_version: int
    acknowledged: list[str]
    pending: list[str]


class CampaignChange(Answer, frozen=True):
    """A committed change: it holds on every worker of `acknowledged`, not yet on `pending`."""

    campaign: CampaignView
    catalog_version: int
    acknowledged: list[str]
    pending: list[str]


class AdvertiserChange(Answer, frozen=True):
    """A committed change: it holds on every worker of `acknowledged`, not yet on `pending`."""

    advertiser: AdvertiserView
    catalog_version: int
    acknowledged: list[str]
    pending: list[str]


class AdList(Answer, frozen=True):
    """One page of ads."""

    items: list[AdView]
    next_cursor: str | None


class CampaignList(Answer, frozen=True):
    """One page of campaigns."""

    items: list[CampaignView]
    next_cursor: str | None


class AdvertiserList(Answer, frozen=True):
    """One page of advertisers."""

    items: list[AdvertiserView]
    next_cursor: str | None


class PlacementList(Answer, frozen=True):
    """One page of placements."""

    items: list[PlacementView]
    next_cursor: str | None
