"""The tables, as SQLAlchemy sees them; the migrations make the same and a test holds them to it."""

from __future__ import annotations

from app.storage.tables.catalog import (
    ads,
    advertisers,
    campaigns,
    catalog_version,
    placements,
)
from app.storage.tables.events import (
    ad_statistics,
    bid_type_changes,
    erasures,
    events,
    horizons,
    set_aside,
    statistics_cursor,
    training_cursor,
)
from app.storage.tables.model import (
    comparison_slices,
    comparisons,
    job_ticks,
    promotions,
    retrain_runs,
    serving,
    serving_history,
    snapshots,
)
from app.storage.tables.operation import (
    api_keys,
    audit,
    token_keys,
    workers,
)
from app.storage.tables.parts import metadata

__all__ = [
    "ad_statistics",
    "ads",
    "advertisers",
    "api_keys",
    "audit",
    "bid_type_changes",
    "campaigns",
    "catalog_version",
    "comparison_slices",
    "comparisons",
    "erasures",
    "events",
    "horizons",
    "job_ticks",
    "metadata",
    "placements",
    "promotions",
    "retrain_runs",
    "serving",
    "serving_history",
    "set_aside",
    "snapshots",
    "statistics_cursor",
    "token_keys",
    "training_cursor",
    "workers",
]
