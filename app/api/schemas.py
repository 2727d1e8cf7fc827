"""The bodies of requests and answers, with every bound; the OpenAPI document is made from these.

Strict: an unknown key is an error, and neither `true` nor `1.0` nor `"1"` passes for an integer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.api.schedule import ScheduleBody
from app.serving.scoring import ScoredAd, ScoredUser
from app.serving.tokens import MAX_PLACEMENT, PLACEMENT_NAME
from app.storage.job_runs import RunState
from models.types import MAX_ID, BidType, EventType, State

Id = Annotated[int, Meta(ge=1, le=MAX_ID)]
Micros = Annotated[int, Meta(ge=0, le=MAX_ID)]
BidMicros = Annotated[int, Meta(ge=1, le=10**12)]
FeatureName = Annotated[str, Meta(min_length=1, max_length=64)]
FeatureText = Annotated[str, Meta(max_length=256)]
Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
FeatureScalar = FeatureText | Whole | float | bool
FeatureScalars = Annotated[list[FeatureScalar], Meta(max_length=255)]
Features = Annotated[dict[FeatureName, FeatureScalar | FeatureScalars | None], Meta(max_length=64)]
UserKey = Annotated[str, Meta(max_length=128)]
Placement = Annotated[str, Meta(max_length=MAX_PLACEMENT, pattern=PLACEMENT_NAME)]

# PostgreSQL's text and JSON cannot hold the character NUL, so what it stores must not.
_STORABLE = r"^[^\x00]*$"
Name = Annotated[str, Meta(max_length=200, pattern=_STORABLE)]
StoredName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_STORABLE)]
# A pattern on a text that stands in a union with a list corrupts memory in msgspec 0.22: the values
# of features are looked through for NUL in `app.api.ad_document` instead.
StoredFeatures = Annotated[
    dict[StoredName, FeatureScalar | FeatureScalars | None], Meta(max_length=64)
]
CreativeText = Annotated[str, Meta(max_length=2048, pattern=_STORABLE)]
Moment = Annotated[datetime, Meta(tz=True)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an answer."""


class ScoreRequest(Body, frozen=True):
    """Score these ads for one user. `user_key`: as of decisions."""

    user: Features
    ad_ids: Annotated[list[Id], Meta(min_length=1, max_length=1000)]
    user_key: UserKey = ""


class ScoreAnswer(Answer, frozen=True):
    """Scores by one snapshot and one version of the catalog."""

    snapshot_id: UUID
    catalog_version: int
    ads: list[ScoredAd]


class BatchUser(Body, frozen=True):
    """One user of a batch; `ad_ids` in place of the batch's own."""

    user: Features
    ad_ids: Annotated[list[Id], Meta(min_length=1, max_length=1000)] | None = None


class BatchRequest(Body, frozen=True):
    """Score ads for many users: each one's own, else those of `ad_ids`; at most 10,000 pairs."""

    users: Annotated[list[BatchUser], Meta(min_length=1, max_length=1000)]
    ad_ids: Annotated[list[Id], Meta(max_length=1000)] = []


class BatchAnswer(Answer, frozen=True):
    """Scores of each user, in the order of the request, by one snapshot and one catalog version."""

    snapshot_id: UUID
    catalog_version: int
    users: list[ScoredUser]


class DecisionRequest(Body, frozen=True):
    """Choose ads for the slots of one page.

    `user_key`: while a canary runs, users of one key get answers of one snapshot. It is hashed and
    not kept.
    """

    user: Features
    slots: Annotated[int, Meta(ge=1, le=50)]
    placement: Placement = ""
    exclude: Annotated[list[Id], Meta(max_length=1000)] = []
    floor_micros: Micros = 0
    per_advertiser: Annotated[int, Meta(ge=1, le=50)] | None = None
    user_key: UserKey = ""


class ExplainRequest(DecisionRequest, frozen=True):
    """A decision to explain. `ad_ids`: ads to explain beside those of the page; `decision_id`: of
    an earlier decision, for the same draws of exploration."""

    ad_ids: Annotated[list[Id], Meta(max_length=50)] = []
    decision_id: UUID | None = None


class EventBody(Body, frozen=True):
    """One event of a decided ad; its time is the server's receipt.

    `value_micros`: what a conversion is worth, of which no other type has any.
    """

    type: EventType
    token: str
    value_micros: Micros | None = None


class EventsRequest(Body, frozen=True):
    """Events to store; the answer comes once they are durable."""

    events: Annotated[list[EventBody], Meta(min_length=1, max_length=1000)]


class RejectedEvent(Answer, frozen=True):
    """An event that was not stored: its position in the request and why."""

    index: int
    reason: Literal["malformed", "unknown_key", "forged", "expired", "too_old", "not_a_conversion"]


class EventsAnswer(Answer, frozen=True):
    """What became of the events."""

    accepted: int
    duplicate: int
    rejected: list[RejectedEvent]


class Range(Body, frozen=True, omit_defaults=True):
    """A range of a numeric feature, both ends inclusive; leave one out for an open end."""

    min: float | None = None
    max: float | None = None


TargetingClause = Annotated[
    dict[StoredName, Annotated[list[FeatureScalar], Meta(min_length=1, max_length=1000)] | Range],
    Meta(min_length=1, max_length=1),
]
TargetingClauses = Annotated[list[TargetingClause], Meta(max_length=32)]


class TargetingBody(Body, frozen=True, omit_defaults=True):
    """Every clause of `all`, at least one of `any` (if there are some), no clause of `none`."""

    all: TargetingClauses = []
    any: TargetingClauses = []
    none: TargetingClauses = []


class FlightBody(Body, frozen=True):
    """When the ad may serve: start inclusive, end exclusive."""

    start: Moment | None = None
    end: Moment | None = None


class AdBody(Body, frozen=True):
    """An ad as its owner gives it; `id` may be left out where the address names it."""

    campaign_id: Id
    bid_micros: BidMicros
    id: Id | UnsetType = UNSET
    state: State = "active"
    bid_type: BidType = "cpc"
    features: StoredFeatures = {}
    targeting: TargetingBody = TargetingBody()
    flight: FlightBody = FlightBody()
    schedule: ScheduleBody | None = None
    creative: Annotated[dict[StoredName, CreativeText], Meta(max_length=16)] = {}


class AdPatch(Body, frozen=True):
    """A change of state, of bid, or of both."""

    state: State | UnsetType = UNSET
    bid_micros: BidMicros | UnsetType = UNSET


class AdChangeBody(AdPatch, frozen=True, kw_only=True):
    """A change of one ad of many."""

    id: Id


class BulkRequest(Body, frozen=True):
    """Changes of many ads, made together as one version of the catalog."""

    changes: Annotated[list[AdChangeBody], Meta(min_length=1, max_length=5000)]


class CampaignBody(Body, frozen=True):
    """A campaign as its owner gives it."""

    advertiser_id: Id
    id: Id | UnsetType = UNSET
    state: State = "active"
    name: Name = ""


class AdvertiserBody(Body, frozen=True):
    """An advertiser as its owner gives it."""

    id: Id | UnsetType = UNSET
    state: State = "active"
    name: Name = ""


class PlacementBody(Body, frozen=True):
    """A placement's floor, per thousand impressions, and the ads for slots that nobody buys.

    House ads are ads of the catalog, the first preferred. At this placement they do not compete.
    """

    floor_micros: Micros = 0
    house_ads: Annotated[list[Id], Meta(max_length=50)] = []


class StatePatch(Body, frozen=True):
    """A change of state."""

    state: State


class RetrainRequest(Body, frozen=True):
    """Train now. Radii may only be tightened; the step size may be anything."""

    step_size: Annotated[float, Meta(gt=0, le=1e12)] | UnsetType = UNSET
    user_radius: Annotated[float, Meta(gt=0)] | UnsetType = UNSET
    ad_radius: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class ReleaseRequest(Body, frozen=True):
    """Let the events that a rule set aside count after all; of one ad, or of all."""

    rule: Literal["token", "address", "ad"]
    ad_id: Id | None = None


class QuarantinedView(Answer, frozen=True):
    """Events that one rule has set aside: of one type, and when the first and last came."""

    rule: str
    type: EventType
    events: int
    first_at: datetime
    last_at: datetime


class QuarantineList(Answer, frozen=True):
    """What is set aside, by rule and type."""

    items: list[QuarantinedView]
    next_cursor: None = None


class ReleasedView(Answer, frozen=True):
    """How many events count again."""

    released: int


class ErasureView(Answer, frozen=True):
    """An erased value of a user by its hash, and how far its erasure has come.

    `events`: stored events that lost it; since `events_at` none has it. On workers of
    `acknowledged` no request and no event finds it any more, on `pending` one may.
    """

    feature: str
    hash: str
    version: int
    erased_at: datetime
    events: int
    events_at: datetime | None
    acknowledged: list[str]
    pending: list[str]


ActReason = Annotated[str, Meta(max_length=500, pattern=_STORABLE)]


class ActRequest(Body, frozen=True):
    """`reason` stands in the history beside who did it."""

    reason: ActReason = ""


class RollbackRequest(ActRequest, frozen=True):
    """`serving`: the snapshot to get away from; when another one serves, nothing is done."""

    serving: UUID | None = None


class PromoteRequest(ActRequest, frozen=True):
    """A pinned snapshot stays until the next promotion or rollback."""

    pin: bool = False


class CheckView(Answer, frozen=True):
    """One of the gate's checks: what was measured, its limit, whether it passed, and why not."""

    name: str
    value: float | None
    limit: float | None
    passed: bool
    reason: str


class VerdictView(Answer, frozen=True):
    """The gate's answer; `reasons` are those of the checks that failed."""

    result: Literal["accepted", "repaired", "refused"]
    reasons: list[str]
    checks: list[CheckView]


class ServingView(Answer, frozen=True):
    """What is served, and from which snapshot the next training starts (`head_id`).

    While `is_pinned`, newly trained snapshots are recorded but not served.
    """

    snapshot_id: UUID
    head_id: UUID
    is_pinned: bool


class PromotedView(ServingView, frozen=True):
    """What is served now, and the workers that serve it already or do not yet."""

    acknowledged: list[str]
    pending: list[str]


class RunView(Answer, frozen=True):
    """One training run; `snapshot_id` is what it made."""

    id: UUID
    state: RunState
    actor: str
    overrides: dict[str, float]
    snapshot_id: UUID | None
    events: int
    reasons: list[str]
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunList(Answer, frozen=True):
    """One page of training runs, the newest first."""

    items: list[RunView]
    next_cursor: str | None


class Alive(Answer, frozen=True):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Readiness(Answer, frozen=True):
    """Whether this worker decides, and what is wrong if something is."""

    status: Literal["ready", "degraded", "starting", "cut_off"]
    database: Literal["reachable", "unreachable"]
    snapshot_id: UUID | None
    catalog_version: int | None
    reasons: list[str]
