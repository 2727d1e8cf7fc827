"""One example of each answer, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.api import schemas, views
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
    "creative": _CREATIVE,
    "version": 118,
}
_CAMPAIGN = {"id": 7, "advertiser_id": 3, "state": "active", "name": "Autumn", "version": 112}
_ADVERTISER = {"id": 3, "state": "active", "name": "Shoes Ltd", "version": 110}
_PLACEMENT = {"name": "home", "floor_micros": 500_000, "house_ads": [42], "version": 121}
_SNAPSHOT = {
    "id": _SNAPSHOT_ID,
    "parent_id": _PARENT_ID,
    "created_at": "2026-11-22T12:00:00Z",
    "first_event_at": "2026-11-22T11:45:00Z",
    "last_event_at": "2026-11-22T11:59:58Z",
    "expired_at": None,
    "is_serving": True,
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
}
_SERVING = {"snapshot_id": _SNAPSHOT_ID, "head_id": _SNAPSHOT_ID, "is_pinned": False}
_HELD = {"acknowledged": ["019aaa20-1a00-7d40-b5f2-6c1e8f0a9d33"], "pending": []}
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
    schemas.SnapshotView: _SNAPSHOT,
    schemas.SnapshotList: _page(_SNAPSHOT),
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
