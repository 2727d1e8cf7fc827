"""Events, what has been read of them, what is counted of them, what is set aside or erased."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, UUID

from app.storage.tables.parts import (
    EVENT_TYPES,
    NOW,
    TIME,
    Xid8,
    is_single,
    metadata,
    one_of,
    single,
)
from models.types import MAX_ID

events = sa.Table(
    "events",
    metadata,
    sa.Column("decided_at", TIME, primary_key=True),
    sa.Column("decision_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("type", sa.Text, primary_key=True),
    sa.Column("ad_id", sa.BigInteger, nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), nullable=False),
    sa.Column("catalog_version", sa.BigInteger, nullable=False),
    sa.Column("price_micros", sa.BigInteger, nullable=False),
    sa.Column("propensity", sa.REAL, nullable=False),
    sa.Column("placement", sa.Text, nullable=False),
    sa.Column("features", BYTEA),
    sa.Column("xid", Xid8, nullable=False, server_default=sa.text("pg_current_xact_id()")),
    sa.Column("received_at", TIME, nullable=False, server_default=NOW),
    sa.Column("value_micros", sa.BigInteger),
    sa.Column("quarantined_by", sa.Text),
    one_of("type", EVENT_TYPES),
    sa.CheckConstraint(f"ad_id BETWEEN 1 AND {MAX_ID}", name="ad_id_range"),
    sa.CheckConstraint("slot >= 0", name="slot_not_negative"),
    sa.CheckConstraint("price_micros >= 0", name="price_micros_not_negative"),
    sa.CheckConstraint("propensity > 0 AND propensity <= 1", name="propensity_range"),
    sa.CheckConstraint(
        "(type = 'impression') = (features IS NOT NULL)", name="features_of_impressions"
    ),
    sa.CheckConstraint(
        "value_micros IS NULL OR (type = 'conversion' AND value_micros >= 0)",
        name="value_micros_of_conversions",
    ),
    sa.Index(None, "xid"),
    sa.Index(
        "ix_events_quarantined_by",
        *("quarantined_by", "decided_at"),
        postgresql_where=sa.text("quarantined_by IS NOT NULL"),
    ),
    postgresql_partition_by="RANGE (decided_at)",
)

horizons = sa.Table(
    "horizons",
    metadata,
    sa.Column("recorded_at", TIME, primary_key=True),
    sa.Column("lowest_running", Xid8, nullable=False),
)
"""Every transaction below `lowest_running` had ended at `recorded_at`: PostgreSQL calls it xmin,
which no column of a table may be called."""

training_cursor = sa.Table(
    "training_cursor",
    metadata,
    single(),
    sa.Column("impressions_xid", Xid8, nullable=False),
    sa.Column("clicks_xid", Xid8, nullable=False),
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("moved_at", TIME, nullable=False, server_default=NOW),
    sa.Column("window_s", sa.Double),
    is_single(),
)

ad_statistics = sa.Table(
    "ad_statistics",
    metadata,
    sa.Column("hour", TIME, primary_key=True),
    sa.Column("ad_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("placement", sa.Text, primary_key=True),
    sa.Column("snapshot_id", UUID(as_uuid=True), primary_key=True),
    sa.Column("impressions", sa.BigInteger, nullable=False),
    sa.Column("clicks", sa.BigInteger, nullable=False),
    sa.Column("conversions", sa.BigInteger, nullable=False),
    sa.Column("closes", sa.BigInteger, nullable=False),
    sa.Column("conversion_value_micros", sa.Numeric, nullable=False),
    sa.Column("spend_thousandths", sa.Numeric, nullable=False),
    sa.Index(None, "ad_id", "hour"),
    postgresql_with={"fillfactor": "70"},
)
"""Counts of the events that were decided in one hour; spend in thousandths of a micro."""

statistics_cursor = sa.Table(
    "statistics_cursor",
    metadata,
    single(),
    sa.Column("xid", Xid8, nullable=False),
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("complete_until", TIME),
    sa.Column("pending_xid", Xid8),
    sa.Column("pending_at", TIME),
    sa.Column("moved_at", TIME, nullable=False, server_default=NOW),
    is_single(),
)

set_aside = sa.Table(
    "set_aside",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("xid", Xid8, nullable=False, server_default=sa.text("pg_current_xact_id()")),
    sa.Column("stored_xid", Xid8, nullable=False),
    sa.Column("decided_at", TIME, nullable=False),
    sa.Column("ad_id", sa.BigInteger, nullable=False),
    sa.Column("placement", sa.Text, nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), nullable=False),
    sa.Column("catalog_version", sa.BigInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("price_micros", sa.BigInteger, nullable=False),
    sa.Column("value_micros", sa.BigInteger),
)
"""Events that counted and were quarantined later, until the statistics have taken them back."""

bid_type_changes = sa.Table(
    "bid_type_changes",
    metadata,
    sa.Column("ad_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("before", sa.Text, nullable=False),
)
"""The bid type that an ad had until a catalog version; filled by a trigger on `ads`."""

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("hash", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("missing", sa.BigInteger, nullable=False),
    sa.Column("feature", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, unique=True),
    sa.Column("erased_at", TIME, nullable=False, server_default=NOW),
    sa.Column("events_at", TIME),
    sa.Column("events", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("events >= 0", name="events_not_negative"),
)
"""Erased values by their hashes; `missing`: the hash of their feature without a value; `events`:
stored events from which the value was taken, all of them by `events_at`."""
