"""What the server answers. Amounts ending in `_micros` are millionths of the account's currency.

Fields that a newer server adds are ignored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

Item = TypeVar("Item")
State = Literal["active", "paused", "retired"]
BidType = Literal["cpc", "cpm"]
EventType = Literal["impression", "click", "conversion", "close"]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that happened to a decided ad; only a conversion has a value."""

    type: EventType
    token: str
    value_micros: int | None = None


class DecidedAd(msgspec.Struct, frozen=True):
    """One ad in one slot, counted from 0. `price_micros`: per click, or per thousand for CPM.

    `house`: the placement's own, free, in a slot that nobody bought; `explored`: a new ad that is
    tried there.
    """

    slot: int
    ad_id: int
    pctr: float
    ecpm_micros: int
    price_micros: int
    creative: dict[str, str]
    token: str
    house: bool = False
    explored: bool = False

    def impression(self) -> Event:
        """It was rendered."""
        return Event("impression", self.token)

    def click(self) -> Event:
        """It was clicked."""
        return Event("click", self.token)

    def conversion(self, value_micros: int | None = None) -> Event:
        """Its click led to something, of this value."""
        return Event("conversion", self.token, value_micros)

    def close(self) -> Event:
        """It was closed by the user."""
        return Event("close", self.token)


class Decision(msgspec.Struct, frozen=True):
    """The answer to one ad request, best slot first.

    `certified`: no eligible ad that was passed over would have earned more. `no_fill`: for an
    answer without ads, how many ads each reason kept from it.
    """

    decision_id: UUID
    snapshot_id: UUID
    catalog_version: int
    certified: bool
    ads: list[DecidedAd]
    no_fill: dict[str, int] = {}


class ScoredAd(msgspec.Struct, frozen=True):
    """One candidate; an ad that the catalog lacks has no figures. `reason`: why not eligible."""

    ad_id: int
    known: bool
    pctr: float | None
    bid_micros: int | None
    ecpm_micros: int | None
    eligible: bool
    reason: str | None


class Scores(msgspec.Struct, frozen=True):
    """Scores by one snapshot and one version of the catalog, in the order of the candidates."""

    snapshot_id: UUID
    catalog_version: int
    ads: list[ScoredAd]


class ScoredUser(msgspec.Struct, frozen=True):
    """One user of a batch: lists in the order of the candidates; `reasons`: None where eligible."""

    pctr: list[float | None]
    ecpm_micros: list[int | None]
    reasons: list[str | None]


class BatchScores(msgspec.Struct, frozen=True):
    """Scores of many users by one snapshot and one version of the catalog."""

    snapshot_id: UUID
    catalog_version: int
    users: list[ScoredUser]


class Rejected(msgspec.Struct, frozen=True):
    """An event that was not stored: its place in the request, and why."""

    index: int
    reason: str


class Stored(msgspec.Struct, frozen=True):
    """What became of the events: `duplicate` ones had been stored before."""

    accepted: int
    duplicate: int
    rejected: list[Rejected]


class ExplainedAd(msgspec.Struct, frozen=True):
    """One ad in one decision. `reason`: why it is not on the page, None if it is.

    `needed_ecpm_micros`: what its eCPM would have to exceed for a slot, where that alone keeps it
    out; `score_parts`: each with part, features and logits.
    """

    ad_id: int
    reason: str | None
    slot: int | None = None
    price_micros: int | None = None
    pctr: float | None = None
    bid_micros: int | None = None
    ecpm_micros: int | None = None
    rank: int | None = None
    needed_ecpm_micros: int | None = None
    score_parts: list[dict[str, Any]] = []


class Explanation(msgspec.Struct, frozen=True):
    """A decision explained: the ads of its page, then those asked for."""

    decision_id: UUID
    snapshot_id: UUID
    catalog_version: int
    floor_micros: int
    competing: int
    ads: list[ExplainedAd]


class Change(msgspec.Struct, frozen=True):
    """A committed change: it holds on the workers of `acknowledged`, not yet on `pending`."""

    acknowledged: list[str]
    pending: list[str]

    @property
    def holds_everywhere(self) -> bool:
        """Whether every live worker has it."""
        return not self.pending


class Ad(msgspec.Struct, frozen=True):
    """An ad as the catalog holds it."""

    id: int
    campaign_id: int
    advertiser_id: int
    state: State
    bid_type: BidType
    bid_micros: int
    features: dict[str, Any]
    targeting: dict[str, Any]
    flight: dict[str, Any]
    creative: dict[str, str]
    version: int
    schedule: dict[str, Any] | None = None


class Campaign(msgspec.Struct, frozen=True):
    """A campaign as the catalog holds it."""

    id: int
    advertiser_id: int
    state: State
    name: str
    version: int


class Advertiser(msgspec.Struct, frozen=True):
    """An advertiser as the catalog holds it."""

    id: int
    state: State
    name: str
    version: int


class Placement(msgspec.Struct, frozen=True):
    """A placement as the catalog holds it."""

    name: str
    floor_micros: int
    house_ads: list[int]
    version: int


class AdChange(Change, frozen=True):
    """A change of an ad."""

    ad: Ad
    catalog_version: int


class CampaignChange(Change, frozen=True):
    """A change of a campaign."""

    campaign: Campaign
    catalog_version: int


class AdvertiserChange(Change, frozen=True):
    """A change of an advertiser."""

    advertiser: Advertiser
    catalog_version: int


class PlacementChange(Change, frozen=True):
    """A change of a placement."""

    placement: Placement
    catalog_version: int


class RefusedChange(msgspec.Struct, frozen=True):
    """A change of many that was not made, by its place in the request."""

    index: int
    id: int
    reason: str
    detail: str


class BulkChange(Change, frozen=True):
    """Changes of many ads; `catalog_version` is None where none was made."""

    changed: int
    refused: list[RefusedChange]
    catalog_version: int | None


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list; `next_cursor` asks for the next, None at the end."""

    items: list[Item]
    next_cursor: str | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The gate's answer; `checks` have name, value, limit, passed and reason."""

    result: Literal["accepted", "repaired", "refused"]
    reasons: list[str]
    checks: list[dict[str, Any]]


class Snapshot(msgspec.Struct, frozen=True):
    """A trained snapshot; `roles` is what it is now, such as serving, head or canary."""

    id: UUID
    parent_id: UUID | None
    created_at: datetime
    expired_at: datetime | None
    is_serving: bool
    is_pinned: bool
    verdict: Verdict
    metrics: dict[str, float | None]
    roles: list[str] = []
    comparisons: list[dict[str, Any]] = []


class Serving(msgspec.Struct, frozen=True):
    """What is served, and from which snapshot the next training starts."""

    snapshot_id: UUID
    head_id: UUID
    is_pinned: bool


class Promoted(Change, frozen=True):
    """What is served now, and the workers that serve it."""

    snapshot_id: UUID
    head_id: UUID
    is_pinned: bool


class ComparisonChange(Change, frozen=True):
    """A canary or a shadow that began or ended; `comparison` has its figures and its judgement."""

    comparison: dict[str, Any]


class Period(msgspec.Struct, frozen=True):
    """From `from_at` until `until` (None: still) this snapshot answered, a canary some of it."""

    id: int
    from_at: datetime
    until: datetime | None
    action: str
    snapshot_id: UUID
    is_pinned: bool
    canary_id: UUID | None
    share: float | None
    actor: str
    reason: str


class Run(msgspec.Struct, frozen=True):
    """One training run; `snapshot_id` is what it made, `reasons` why it was refused."""

    id: UUID
    state: str
    actor: str
    overrides: dict[str, float]
    snapshot_id: UUID | None
    events: int
    reasons: list[str]
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Performance(msgspec.Struct, frozen=True):
    """The figures of one group, named by what was grouped by; the rest of the names are UNSET."""

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


class PerformanceReport(msgspec.Struct, frozen=True):
    """One page of a report; all events acknowledged before `complete_until` are in it."""

    since: datetime
    until: datetime
    complete_until: datetime | None
    group_by: list[str]
    items: list[Performance]
    next_cursor: str | None


class Quarantined(msgspec.Struct, frozen=True):
    """Events of one type that one rule has set aside."""

    rule: str
    type: EventType
    events: int
    first_at: datetime
    last_at: datetime


class Released(msgspec.Struct, frozen=True):
    """How many events count again."""

    released: int


class Erasure(Change, frozen=True):
    """An erased value of a user by its hash; since `events_at` no stored event has it."""

    feature: str
    hash: str
    version: int
    erased_at: datetime
    events: int
    events_at: datetime | None


class Act(msgspec.Struct, frozen=True):
    """One administrative act: the changed thing before and after."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Readiness(msgspec.Struct, frozen=True):
    """Whether the worker that answered decides, and what is wrong if something is."""

    status: str
    database: str
    snapshot_id: UUID | None
    catalog_version: int | None
    reasons: list[str]
