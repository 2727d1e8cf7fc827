"""One example of each answer, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api import lifecycle_views, schemas, views
from app.errors import Problem
from app.serving.explaining import Explanation
from app.serving.pipeline import Decision

_SNAPSHOT_ID = "019aaa22-7c00-7a51-8d3e-2f6b90c4e7d1"
_PARENT_ID = "019aa9fe-4b10-7c02-9e77-51d08a3b6f24"
_CREATIVE = {"title": "Run", "landing_url": "https://example.com/run"}
_AD = {
    "id": 42,
    "campaign_id": 7,
    "advertiser_id": 3,
    "state": "active",
    "bid_type": "cpc",
    "bid_micros": 350_000,
    "features": {"category": ["shoes", "running"], "format": "card"},
    "targeting": {"all": [{"user.geo": ["us", "ca"]}, {"user.hour": {"min": 8.0, "max": 22.0}}]},
    "flight": {"start": "2026-11-22T00:00:00Z", "end": None},
    "schedule": {
        "timezone": "Europe/Berlin",
        "hours": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "22:00"}],
    },
    "creative": _CREATIVE,
    "version": 118,
}
_CAMPAIGN = {"id": 7, "advertiser_id": 3, "state": "active", "name": "Autumn", "version": 112}
_ADVERTISER = {"id": 3, "state": "active", "name": "Shoes Ltd", "version": 110}
_PLACEMENT = {"name": "home", "floor_micros": 500_000, "house_ads": [42], "version": 121}
_COMPARISON: dict[str, Any] = {
    "id": 4,
    "kind": "canary",
    "snapshot_id": _SNAPSHOT_ID,
    "incumbent_id": _PARENT_ID,
    "share": 0.1,
    "actor": "key:5b0c",
    "reason": "new category feature",
    "started_at": "2026-11-22T12:10:00Z",
    "measured_until": "2026-11-22T12:40:00Z",
    "candidate": {
        "impressions": 4100,
        "clicks": 83,
        "spend_micros": 21_400_000,
        "log_loss": 0.0961,
        "calibration": 1.03,
    },
    "incumbent": {
        "impressions": 36_900,
        "clicks": 712,
        "spend_micros": 188_300_000,
        "log_loss": 0.0958,
        "calibration": 1.01,
    },
    "log_loss_difference": -0.0004,
    "log_loss_error": 0.0002,
    "rule": {
        "min_clicks": 200,
        "log_loss_limit": 0.01,
        "calibration_low": 0.8,
        "calibration_high": 1.25,
        "error_rate": 0.05,
        "longest_s": 86_400.0,
    },
    "judgement": {
        "result": "wait",
        "reasons": ["83 clicks so far, 200 are needed on both sides"],
        "checks": [],
    },
    "ended_at": None,
    "outcome": None,
    "ended_by": None,
    "end_reason": None,
}
_SNAPSHOT = {
    "id": _SNAPSHOT_ID,
    "parent_id": _PARENT_ID,
    "created_at": "2026-11-22T12:00:00Z",
    "first_event_at": "2026-11-22T11:45:00Z",
    "last_event_at": "2026-11-22T11:59:58Z",
    "expired_at": None,
    "is_serving": False,
    "is_pinned": False,
    "schema_hash": "9f2c41d07be65a18",
    "verdict": {
        "result": "accepted",
        "reasons": [],
        "checks": [
            {"name": "finite", "value": 0.0, "limit": 0.0, "passed": True, "reason": ""},
        ],
    },
    "metrics": {"log_loss": 0.092},
    "roles": ["canary"],
    "comparisons": [_COMPARISON],
}
_SERVING = {"snapshot_id": _SNAPSHOT_ID, "head_id": _SNAPSHOT_ID, "is_pinned": False}
_HELD = {"acknowledged": ["019aaa20-1a00-7d40-b5f2-6c1e8f0a9d33"], "pending": []}
_FIGURES = {
    "impressions": 12_000,
    "clicks": 180,
    "ctr": 0.015,
    "conversions": 9,
    "conversion_value_micros": 225_000_000,
    "closes": 14,
    "spend_micros": 45_360_000,
    "ecpm_micros": 3_780_000,
}
PERFORMANCE_CSV = (
    "campaign_id,hour,impressions,clicks,ctr,conversions,conversion_value_micros,closes,"
    "spend_micros,ecpm_micros\n"
    "7,2026-11-22T11:00:00Z,12000,180,0.015,9,225000000,14,45360000,3780000\n"
)
_RUN: dict[str, Any] = {
    "id": "019aaa22-6f00-7b83-a1c4-0e9d7755b2aa",
    "state": "requested",
    "actor": "key:5b0c",
    "overrides": {"step_size": 1.0},
    "snapshot_id": None,
    "events": 0,
    "reasons": [],
    "requested_at": "2026-11-22T12:00:00Z",
    "started_at": None,
    "finished_at": None,
}


def _page(item: object) -> dict[str, Any]:
    return {"items": [item], "next_cursor": None}


def _change(name: str, item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item, "catalog_version": item["version"], **_HELD}


EXAMPLES: Mapping[type, dict[str, Any]] = {
    schemas.ScoreAnswer: {
        "snapshot_id": _SNAPSHOT_ID,
        "catalog_version": 118,
        "ads": [
            {
                "ad_id": 42,
                "known": True,
                "pctr": 0.02,
                "bid_micros": 350_000,
                "ecpm_micros": 7_000_000,
                "eligible": True,
                "reason": None,
            },
            {
                "ad_id": 43,
                "known": False,
                "pctr": None,
                "bid_micros": None,
                "ecpm_micros": None,
                "eligible": False,
                "reason": "unknown_ad",
            },
        ],
    },
    schemas.BatchAnswer: {
        "snapshot_id": _SNAPSHOT_ID,
        "catalog_version": 118,
        "users": [
            {
                "pctr": [0.02, None],
                "ecpm_micros": [7_000_000, None],
                "reasons": [None, "unknown_ad"],
            },
            {"pctr": [0.01], "ecpm_micros": [3_500_000], "reasons": ["targeting"]},
        ],
    },
    Decision: {
        "decision_id": "019aaa23-0c00-7e15-92ab-7f40d1c86e59",
        "snapshot_id": _SNAPSHOT_ID,
        "catalog_version": 118,
        "certified": True,
        "ads": [
            {
                "slot": 0,
                "ad_id": 44,
                "pctr": 0.02,
                "ecpm_micros": 7_000_000,
                "price_micros": 310_000,
                "creative": _CREATIVE,
                "token": "AQEb…",
            }
        ],
    },
    Explanation: {
        "decision_id": "019aaa23-0c00-7e15-92ab-7f40d1c86e59",
        "snapshot_id": _SNAPSHOT_ID,
        "catalog_version": 118,
        "certified": True,
        "floor_micros": 500_000,
        "per_advertiser": 1,
        "competing": 1840,
        "is_trial": False,
        "ads": [
            {
                "ad_id": 43,
                "reason": "outbid",
                "slot": None,
                "price_micros": None,
                "explored": False,
                "house": False,
                "propensity": None,
                "state": "active",
                "campaign_state": "active",
                "advertiser_state": "active",
                "meets_targeting": True,
                "bid_micros": 120_000,
                "pctr": 0.018,
                "ecpm_micros": 2_160_000,
                "rank": 212,
                "needed_ecpm_micros": 7_000_000,
                "is_new": False,
                "score_deviation": 0.21,
                "score": -4.0,
                "score_parts": [
                    {"part": "bias", "features": [], "logits": -3.9},
                    {"part": "main effect", "features": ["ad.campaign"], "logits": -0.15},
                    {
                        "part": "interaction",
                        "features": ["user.geo", "user.hour"],
                        "logits": 0.05,
                    },
                ],
            }
        ],
    },
    schemas.EventsAnswer: {
        "accepted": 1,
        "duplicate": 0,
        "rejected": [{"index": 1, "reason": "expired"}],
    },
    schemas.QuarantineList: {
        "items": [
            {
                "rule": "address",
                "type": "click",
                "events": 41,
                "first_at": "2026-11-22T11:58:20Z",
                "last_at": "2026-11-22T12:03:07Z",
            }
        ],
        "next_cursor": None,
    },
    schemas.ReleasedView: {"released": 41},
    schemas.ErasureView: {
        "feature": "user.visitor",
        "hash": "a2c94f0d11b76e83",
        "version": 17,
        "erased_at": "2026-11-22T12:03:07Z",
        "events": 0,
        "events_at": None,
        "acknowledged": ["019aa9f2-6f0e-7c4d-9d6c-6a1f0b1f2c3d"],
        "pending": [],
    },
    views.AuditList: _page(
        {
            "id": 812,
            "at": "2026-11-22T12:03:07Z",
            "actor": "key:019aaa20-0d00-7f21-9c1d-5f0e8a7b6c31",
            "action": "patch",
            "subject": "ad:42",
            "before": {"state": "active", "bid_micros": 350_000},
            "after": {"state": "paused", "bid_micros": 350_000},
        }
    ),
    views.AdView: _AD,
    views.AdList: _page(_AD),
    views.AdChange: _change("ad", _AD),
    views.CampaignView: _CAMPAIGN,
    views.CampaignList: _page(_CAMPAIGN),
    views.CampaignChange: _change("campaign", _CAMPAIGN),
    views.AdvertiserView: _ADVERTISER,
    views.AdvertiserList: _page(_ADVERTISER),
    views.AdvertiserChange: _change("advertiser", _ADVERTISER),
    views.PlacementView: _PLACEMENT,
    views.PlacementList: _page(_PLACEMENT),
    views.PlacementChange: _change("placement", _PLACEMENT),
    views.BulkChange: {
        "changed": 1,
        "refused": [
            {"index": 1, "id": 43, "reason": "not_found", "detail": "there is no ad 43"},
        ],
        "catalog_version": 1042,
        **_HELD,
    },
    views.PerformanceReport: {
        "since": "2026-11-22T00:00:00Z",
        "until": "2026-11-22T13:00:00Z",
        "complete_until": "2026-11-22T12:03:10.412Z",
        "group_by": ["campaign", "hour"],
        "items": [{"campaign_id": 7, "hour": "2026-11-22T11:00:00Z", **_FIGURES}],
        "next_cursor": None,
    },
    lifecycle_views.SnapshotView: _SNAPSHOT,
    lifecycle_views.SnapshotList: _page(_SNAPSHOT),
    lifecycle_views.ComparisonChange: {"comparison": _COMPARISON, **_HELD},
    lifecycle_views.HistoryList: _page(
        {
            "id": 31,
            "from_at": "2026-11-22T12:10:00Z",
            "until": None,
            "action": "canary_started",
            "subject_id": _SNAPSHOT_ID,
            "snapshot_id": _PARENT_ID,
            "is_pinned": False,
            "canary_id": _SNAPSHOT_ID,
            "share": 0.1,
            "actor": "key:5b0c",
            "reason": "new category feature",
        }
    ),
    schemas.ServingView: _SERVING,
    schemas.PromotedView: {**_SERVING, **_HELD},
    schemas.RunView: _RUN,
    schemas.RunList: _page(_RUN),
    schemas.Alive: {"status": "alive"},
    schemas.Readiness: {
        "status": "ready",
        "database": "reachable",
        "snapshot_id": _SNAPSHOT_ID,
        "catalog_version": 118,
        "reasons": [],
    },
    Problem: {
        "type": "urn:problem:adscent:body-invalid",
        "title": "The request is not valid",
        "status": 422,
        "detail": "bid_micros: Expected int >= 1",
        "errors": [
            {
                "field": "bid_micros",
                "value": -5,
                "limit": "Expected int >= 1",
                "remedy": "Send an integer within this limit.",
            }
        ],
    },
}
