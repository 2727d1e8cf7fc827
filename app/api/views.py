"""What calls about the catalog answer: its parts, changes of them, and how they perform."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import UNSET, UnsetType

from app.api.schedule import ScheduleBody
from app.api.schemas import Answer, FlightBody, TargetingBody
from app.storage.statistics import Dimension
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
    schedule: ScheduleBody | None
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


Reason = Literal["not_found", "conflict", "empty"]


class RefusedChange(Answer, frozen=True):
    """A change that was not made, by its position in the request."""

    index: int
    id: int
    reason: Reason
    detail: str


class BulkChange(Answer, frozen=True):
    """Committed changes: they hold on every worker of `acknowledged`, not yet on `pending`.

    `catalog_version` is null where nothing was changed.
    """

    changed: int
    refused: list[RefusedChange]
    catalog_version: int | None
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


class PerformanceView(Answer, frozen=True):
    """The figures of one group, named by what was grouped by; null is not in the catalog.

    `ctr` and `ecpm_micros` (spend on a thousand impressions) are null without any impression.
    """

    impressions: int
    clicks: int
    ctr: float | None
    conversions: int
    conversion_value_micros: int
    closes: int
    spend_micros: int
    ecpm_micros: int | None
    hour: datetime | UnsetType = UNSET
    day: datetime | UnsetType = UNSET
    ad_id: int | UnsetType = UNSET
    campaign_id: int | UnsetType | None = UNSET
    advertiser_id: int | UnsetType | None = UNSET
    placement: str | UnsetType = UNSET
    snapshot_id: UUID | UnsetType = UNSET


class PerformanceReport(Answer, frozen=True):
    """One page of a report on the hours from `since` on, before `until`.

    Every event that was acknowledged before `complete_until` is counted; null before any is.
    """

    since: datetime
    until: datetime
    complete_until: datetime | None
    group_by: list[Dimension]
    items: list[PerformanceView]
    next_cursor: str | None


class AuditView(Answer, frozen=True):
    """One change: the changed thing before and after, null where there was none."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditList(Answer, frozen=True):
    """One page of changes, the newest first."""

    items: list[AuditView]
    next_cursor: str | None
