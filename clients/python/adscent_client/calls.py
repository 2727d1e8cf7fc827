"""Every call as data: what is sent, what comes back, and whether it may be made twice.

A client takes any of them: `client.call(calls.rollback())`; lists page by page or item by item:
`client.items(calls.list_ads(state="paused"))`. A call `is_repeatable` when
making it again after a lost answer does no harm: reads, scores and decisions leave nothing behind,
events are counted once by their token, and a change of state or bid sets what it sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypedDict
from urllib.parse import quote
from uuid import UUID

from adscent_client import answers
from adscent_client.answers import Event, Page, State
from adscent_client.call import Answer, Call, Features, Scalar, parameters, said


class DecideOptions(TypedDict, total=False):
    """What `decide` takes beside the user and the number of slots."""

    placement: str
    exclude: Iterable[int]
    floor_micros: int
    per_advertiser: int | None
    user_key: str
    deadline_ms: int | None


class ScoreOptions(TypedDict, total=False):
    """What `score` takes beside the user and the ads."""

    user_key: str
    deadline_ms: int | None


def decide(
    user: Features,
    slots: int = 1,
    *,
    placement: str = "",
    exclude: Iterable[int] = (),
    floor_micros: int = 0,
    per_advertiser: int | None = None,
    user_key: str = "",
    deadline_ms: int | None = None,
) -> Call[answers.Decision]:
    """Ads for the slots of one page.

    `exclude`: ads that may not be chosen; `floor_micros`: least eCPM; `per_advertiser`: most ads of
    one advertiser, the server's own limit when left out; `user_key`: keeps a user with one snapshot
    while a canary runs; `deadline_ms`: refuse rather than answer later.
    """
    body = {"user": user, "slots": slots} | said(
        placement=placement,
        exclude=list(exclude),
        floor_micros=floor_micros,
        per_advertiser=per_advertiser,
        user_key=user_key,
    )
    return Call("POST", "/v1/decisions", answers.Decision, body, deadline_ms=deadline_ms)


def explain(
    user: Features,
    slots: int = 1,
    *,
    ad_ids: Iterable[int] = (),
    decision_id: UUID | None = None,
    placement: str = "",
    exclude: Iterable[int] = (),
    floor_micros: int = 0,
    per_advertiser: int | None = None,
) -> Call[answers.Explanation]:
    """Why each ad is on the page or not; `ad_ids`: ads to explain beside those of the page."""
    body = {"user": user, "slots": slots} | said(
        ad_ids=list(ad_ids),
        decision_id=decision_id,
        placement=placement,
        exclude=list(exclude),
        floor_micros=floor_micros,
        per_advertiser=per_advertiser,
    )
    return Call("POST", "/v1/decisions:explain", answers.Explanation, body)


def score(
    user: Features, ad_ids: Iterable[int], *, user_key: str = "", deadline_ms: int | None = None
) -> Call[answers.Scores]:
    """Scores of the candidates for one user."""
    body = {"user": user, "ad_ids": list(ad_ids)} | said(user_key=user_key)
    return Call("POST", "/v1/score", answers.Scores, body, deadline_ms=deadline_ms)


def score_batch(
    users: Iterable[Features], ad_ids: Iterable[int], *, deadline_ms: int | None = None
) -> Call[answers.BatchScores]:
    """Scores of the same candidates for many users."""
    body = {"users": [{"user": user} for user in users], "ad_ids": list(ad_ids)}
    return Call("POST", "/v1/score:batch", answers.BatchScores, body, deadline_ms=deadline_ms)


def report(events: Iterable[Event]) -> Call[answers.Stored]:
    """Up to 1,000 events, stored once each however often they are sent."""
    return Call("POST", "/v1/events", answers.Stored, {"events": list(events)})


def put_ad(ad_id: int, ad: Mapping[str, object]) -> Call[answers.AdChange]:
    """Create or replace an ad; `ad` as the API documents it."""
    return Call("PUT", f"/v1/ads/{ad_id}", answers.AdChange, ad)


def patch_ad(
    ad_id: int, *, state: State | None = None, bid_micros: int | None = None
) -> Call[answers.AdChange]:
    """Change an ad's state, its bid, or both."""
    body = said(state=state, bid_micros=bid_micros)
    return Call("PATCH", f"/v1/ads/{ad_id}", answers.AdChange, body)


def change_ads(changes: Iterable[Mapping[str, object]]) -> Call[answers.BulkChange]:
    """Change states and bids of many ads as one version of the catalog."""
    return Call("POST", "/v1/ads:bulk", answers.BulkChange, {"changes": list(changes)})


def get_ad(ad_id: int) -> Call[answers.Ad]:
    """An ad."""
    return Call("GET", f"/v1/ads/{ad_id}", answers.Ad)


def list_ads(
    *, state: State | None = None, campaign_id: int | None = None, advertiser_id: int | None = None
) -> Call[Page[answers.Ad]]:
    """Ads by id."""
    params = parameters(state=state, campaign_id=campaign_id, advertiser_id=advertiser_id)
    return Call("GET", "/v1/ads", Page[answers.Ad], params=params)


def put_campaign(
    campaign_id: int, advertiser_id: int, *, name: str = "", state: State = "active"
) -> Call[answers.CampaignChange]:
    """Create or replace a campaign."""
    body = {"advertiser_id": advertiser_id, "name": name, "state": state}
    return Call("PUT", f"/v1/campaigns/{campaign_id}", answers.CampaignChange, body)


def patch_campaign(campaign_id: int, state: State) -> Call[answers.CampaignChange]:
    """Change a campaign's state, and so that of its ads."""
    path = f"/v1/campaigns/{campaign_id}"
    return Call("PATCH", path, answers.CampaignChange, {"state": state})


def get_campaign(campaign_id: int) -> Call[answers.Campaign]:
    """A campaign."""
    return Call("GET", f"/v1/campaigns/{campaign_id}", answers.Campaign)


def list_campaigns(
    *, state: State | None = None, advertiser_id: int | None = None
) -> Call[Page[answers.Campaign]]:
    """Campaigns by id."""
    params = parameters(state=state, advertiser_id=advertiser_id)
    return Call("GET", "/v1/campaigns", Page[answers.Campaign], params=params)


def put_advertiser(
    advertiser_id: int, *, name: str = "", state: State = "active"
) -> Call[answers.AdvertiserChange]:
    """Create or replace an advertiser."""
    body = {"name": name, "state": state}
    return Call("PUT", f"/v1/advertisers/{advertiser_id}", answers.AdvertiserChange, body)


def patch_advertiser(advertiser_id: int, state: State) -> Call[answers.AdvertiserChange]:
    """Change an advertiser's state, and so that of all his ads."""
    path = f"/v1/advertisers/{advertiser_id}"
    return Call("PATCH", path, answers.AdvertiserChange, {"state": state})


def get_advertiser(advertiser_id: int) -> Call[answers.Advertiser]:
    """An advertiser."""
    return Call("GET", f"/v1/advertisers/{advertiser_id}", answers.Advertiser)


def list_advertisers(*, state: State | None = None) -> Call[Page[answers.Advertiser]]:
    """Advertisers by id."""
    params = parameters(state=state)
    return Call("GET", "/v1/advertisers", Page[answers.Advertiser], params=params)


def put_placement(
    name: str, *, floor_micros: int = 0, house_ads: Iterable[int] = ()
) -> Call[answers.PlacementChange]:
    """Create or replace a placement: its floor, and the ads for slots that nobody buys."""
    body = {"floor_micros": floor_micros, "house_ads": list(house_ads)}
    return Call("PUT", f"/v1/placements/{quote(name)}", answers.PlacementChange, body)


def get_placement(name: str) -> Call[answers.Placement]:
    """A placement."""
    return Call("GET", f"/v1/placements/{quote(name)}", answers.Placement)


def list_placements() -> Call[Page[answers.Placement]]:
    """Placements by name."""
    return Call("GET", "/v1/placements", Page[answers.Placement])


def list_snapshots() -> Call[Page[answers.Snapshot]]:
    """Snapshots, the newest first."""
    return Call("GET", "/v1/snapshots", Page[answers.Snapshot])


def get_snapshot(snapshot_id: UUID) -> Call[answers.Snapshot]:
    """A snapshot with its verdict and comparisons."""
    return Call("GET", f"/v1/snapshots/{snapshot_id}", answers.Snapshot)


def history(
    *, since: datetime | None = None, until: datetime | None = None
) -> Call[Page[answers.Period]]:
    """Which snapshot answered when, the newest period first."""
    params = parameters(**{"from": since, "to": until})
    return Call("GET", "/v1/snapshots/history", Page[answers.Period], params=params)


def promote(snapshot_id: UUID, *, pin: bool = False, reason: str = "") -> Call[answers.Promoted]:
    """Serve this snapshot."""
    body = {"pin": pin} | said(reason=reason)
    return _act(f"/v1/snapshots/{snapshot_id}/promote", answers.Promoted, body)


def rollback(*, serving: UUID | None = None, reason: str = "") -> Call[answers.Promoted]:
    """Serve the snapshot before the present one, and pin it.

    `serving`: the snapshot to leave; while another one serves the answer is 409.
    """
    body = said(serving=None if serving is None else str(serving), reason=reason)
    return _act("/v1/snapshots/rollback", answers.Promoted, body)


def pin(*, reason: str = "") -> Call[answers.Serving]:
    """Keep the present snapshot: trained ones are recorded, not served."""
    return _act("/v1/snapshots/pin", answers.Serving, said(reason=reason))


def unpin(*, reason: str = "") -> Call[answers.Serving]:
    """Let newly trained snapshots through again."""
    return _act("/v1/snapshots/unpin", answers.Serving, said(reason=reason))


def start_canary(
    snapshot_id: UUID, *, share: float = 0.1, reason: str = ""
) -> Call[answers.ComparisonChange]:
    """Let a snapshot answer a share of the traffic, and be judged by it."""
    body = {"share": share} | said(reason=reason)
    return _act(f"/v1/snapshots/{snapshot_id}/canary", answers.ComparisonChange, body)


def start_shadow(snapshot_id: UUID, *, reason: str = "") -> Call[answers.ComparisonChange]:
    """Score live traffic with a snapshot that does not serve."""
    path = f"/v1/snapshots/{snapshot_id}/shadow"
    return _act(path, answers.ComparisonChange, said(reason=reason))


def end_canary(snapshot_id: UUID, *, reason: str = "") -> Call[answers.ComparisonChange]:
    """End a canary without a judgement."""
    return _ending(snapshot_id, "canary", reason)


def end_shadow(snapshot_id: UUID, *, reason: str = "") -> Call[answers.ComparisonChange]:
    """End a shadow."""
    return _ending(snapshot_id, "shadow", reason)


def retrain(
    *,
    step_size: float | None = None,
    user_radius: float | None = None,
    ad_radius: float | None = None,
) -> Call[answers.Run]:
    """Train now, with other settings if given."""
    body = said(step_size=step_size, user_radius=user_radius, ad_radius=ad_radius)
    return _act("/v1/retrains", answers.Run, body)


def get_run(run_id: UUID) -> Call[answers.Run]:
    """A training run."""
    return Call("GET", f"/v1/retrains/{run_id}", answers.Run)


def list_runs() -> Call[Page[answers.Run]]:
    """Training runs, the newest first."""
    return Call("GET", "/v1/retrains", Page[answers.Run])


def performance(
    group_by: Sequence[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    ad_ids: Sequence[int] = (),
    campaign_ids: Sequence[int] = (),
    advertiser_ids: Sequence[int] = (),
    placements: Sequence[str] = (),
    snapshot_ids: Sequence[UUID] = (),
) -> Call[answers.PerformanceReport]:
    """Figures by any of ad, campaign, advertiser, placement, snapshot, hour and day."""
    params = parameters(
        group_by=group_by,
        since=since,
        until=until,
        ad_id=ad_ids,
        campaign_id=campaign_ids,
        advertiser_id=advertiser_ids,
        placement=placements,
        snapshot_id=snapshot_ids,
    )
    return Call("GET", "/v1/reports/performance", answers.PerformanceReport, params=params)


def list_quarantine() -> Call[Page[answers.Quarantined]]:
    """Events that are set aside, by rule and type."""
    return Call("GET", "/v1/quarantine", Page[answers.Quarantined])


def release(rule: str, ad_id: int | None = None) -> Call[answers.Released]:
    """Let the events that a rule set aside count after all; of one ad, or of all."""
    return _act("/v1/quarantine/release", answers.Released, {"rule": rule} | said(ad_id=ad_id))


def erase_user(feature: str, value: Scalar) -> Call[answers.Erasure]:
    """Erase a value of a user: it counts as missing from now on, and in all that was stored."""
    return Call("DELETE", _user_value(feature, value), answers.Erasure)


def get_erasure(feature: str, value: Scalar) -> Call[answers.Erasure]:
    """How far an erasure has come."""
    return Call("GET", _user_value(feature, value), answers.Erasure)


def audit(*, subject: str | None = None, actor: str | None = None) -> Call[Page[answers.Act]]:
    """Administrative acts, the newest first."""
    params = parameters(subject=subject, actor=actor)
    return Call("GET", "/v1/audit", Page[answers.Act], params=params)


def readiness() -> Call[answers.Readiness]:
    """Whether the worker that answers decides. One that does not is an `Overloaded` error."""
    return Call("GET", "/readyz", answers.Readiness)


def _act(path: str, answer: type[Answer], body: Mapping[str, object]) -> Call[Answer]:
    return Call("POST", path, answer, body, is_repeatable=False)


def _ending(snapshot_id: UUID, kind: str, reason: str) -> Call[answers.ComparisonChange]:
    path, params = f"/v1/snapshots/{snapshot_id}/{kind}", parameters(reason=reason)
    return Call("DELETE", path, answers.ComparisonChange, params=params, is_repeatable=False)


def _user_value(feature: str, value: Scalar) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"/v1/users/{quote(feature, safe='')}/{quote(text, safe='')}"
