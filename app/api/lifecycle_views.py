"""Snapshots, their comparisons on live traffic and their history, as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from app.api.schemas import ActRequest, Answer, CheckView, VerdictView
from app.storage.comparisons import Kind, Outcome, Role


class CanaryRequest(ActRequest, frozen=True):
    """The share of decisions and scores that the canary answers: at most half."""

    share: Annotated[float, Meta(gt=0, le=0.5)] = 0.1


class SideView(Answer, frozen=True):
    """One side's own figures; a shadow's are those of what the incumbent answered.

    `log_loss` is per impression, `calibration` predicted over observed clicks; null without any.
    """

    impressions: int
    clicks: int
    spend_micros: int
    log_loss: float | None
    calibration: float | None


class JudgementView(Answer, frozen=True):
    """What the rule says of all that was measured; a shadow is only judged."""

    result: Literal["wait", "promote", "roll_back"]
    reasons: list[str]
    checks: list[CheckView]


class RuleView(Answer, frozen=True):
    """The rule of a comparison, as the settings were when it began."""

    min_clicks: int
    log_loss_limit: float
    calibration_low: float
    calibration_high: float
    error_rate: float
    longest_s: float


class ComparisonView(Answer, frozen=True):
    """A canary or a shadow, measured on impressions decided up to `measured_until`.

    `log_loss_difference`: candidate's minus incumbent's, every impression scored by both, the
    impressions of either side counting one half; `log_loss_error` is its standard error.
    """

    id: int
    kind: Kind
    snapshot_id: UUID
    incumbent_id: UUID
    share: float | None
    actor: str
    reason: str
    started_at: datetime
    measured_until: datetime
    candidate: SideView
    incumbent: SideView
    log_loss_difference: float | None
    log_loss_error: float | None
    rule: RuleView
    judgement: JudgementView | None
    ended_at: datetime | None
    outcome: Outcome | None
    ended_by: str | None
    end_reason: str | None


class ComparisonChange(Answer, frozen=True):
    """A comparison that began or ended, and the workers that know already or do not yet."""

    comparison: ComparisonView
    acknowledged: list[str]
    pending: list[str]


class SnapshotView(Answer, frozen=True):
    """A trained snapshot. `expired_at`: since when its files are given up; `roles`: what it is now.

    The next training starts from the `head`. `comparisons`: its canaries and shadows, newest first.
    """

    id: UUID
    parent_id: UUID | None
    created_at: datetime
    first_event_at: datetime | None
    last_event_at: datetime | None
    expired_at: datetime | None
    is_serving: bool
    is_pinned: bool
    roles: list[Role]
    schema_hash: str
    verdict: VerdictView
    metrics: dict[str, float | None]
    comparisons: list[ComparisonView]


class SnapshotList(Answer, frozen=True):
    """One page of snapshots, the newest first."""

    items: list[SnapshotView]
    next_cursor: str | None


class PeriodView(Answer, frozen=True):
    """From `from_at` until `until` (null: still) `snapshot_id` answered, and `canary_id` a `share`.

    `action`, `subject_id`, `actor` and `reason` tell the change that began it.
    """

    id: int
    from_at: datetime
    until: datetime | None
    action: str
    subject_id: UUID
    snapshot_id: UUID
    is_pinned: bool
    canary_id: UUID | None
    share: float | None
    actor: str
    reason: str


class HistoryList(Answer, frozen=True):
    """One page of periods, the newest first."""

    items: list[PeriodView]
    next_cursor: str | None
