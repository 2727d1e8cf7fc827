"""The tables, as SQLAlchemy sees them; the migrations make the same and a test holds them to it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP, UUID

from models.types import MAX_ID

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

STATES = ("active", "paused", "retired")
BID_TYPES = ("cpc", "cpm")
EVENT_TYPES = ("impression", "click", "conversion", "close")
VERDICTS = ("accepted", "repaired", "refused")
RUN_STATES = (
    "requested",
    "running",
    "accepted",
    "repaired",
    "refused",
    "skipped",
    "empty",
    "failed",
)
SCOPES = ("score", "ingest", "admin")
PROMOTION_REASONS = ("genesis", "training", "promotion", "rollback", "canary")
COMPARISON_KINDS = ("canary", "shadow")
COMPARISON_OUTCOMES = ("promoted", "rolled_back", "superseded", "ended")


class Xid8(sa.types.UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id: never reused, ordered by assignment, not by commit."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The type's name in DDL."""
        return "XID8"


_TIME = TIMESTAMP(timezone=True)
_NOW = sa.func.now()


def _id(name: str = "id") -> sa.Column[int]:
    """A caller's own id."""
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _single() -> sa.Column[bool]:
    """The key of a table that has one row."""
    return sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.text("true"))


def _id_range() -> sa.CheckConstraint:
    return sa.CheckConstraint(f"id BETWEEN 1 AND {MAX_ID}", name="id_range")


def _one_of(column: str, choices: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _is_single() -> sa.CheckConstraint:
    return sa.CheckConstraint("single", name="single_row")


advertisers = sa.Table(
    "advertisers",
    metadata,
    _id(),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    _id_range(),
    _one_of("state", STATES),
)

campaigns = sa.Table(
    "campaigns",
    metadata,
    _id(),
    sa.Column(
        "advertiser_id",
        sa.BigInteger,
        sa.ForeignKey("advertisers.id"),
        nullable=False,
        index=True,
    ),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    _id_range(),
    _one_of("state", STATES),
)

ads = sa.Table(
    "ads",
    metadata,
    _id(),
    sa.Column(
        "campaign_id", sa.BigInteger, sa.ForeignKey("campaigns.id"), nullable=False, index=True
    ),
    sa.Column("bid_micros", sa.BigInteger, nullable=False),
    sa.Column("bid_type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("features", JSONB, nullable=False),
    sa.Column("targeting", JSONB, nullable=False),
    sa.Column("flight_start", _TIME),
    sa.Column("flight_end", _TIME),
    sa.Column("creative", JSONB, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    sa.Column("features_version", sa.BigInteger, nullable=False),
    sa.Column("schedule", JSONB(none_as_null=True)),
    _id_range(),
    _one_of("state", STATES),
    _one_of("bid_type", BID_TYPES),
    sa.CheckConstraint("bid_micros >= 1", name="bid_micros_positive"),
    sa.CheckConstraint("flight_end > flight_start", name="flight_ordered"),
)

placements = sa.Table(
    "placements",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("floor_micros", sa.BigInteger, nullable=False),
    sa.Column("house_ads", JSONB, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    sa.CheckConstraint("name <> ''", name="name_not_empty"),
    sa.CheckConstraint("floor_micros >= 0", name="floor_micros_not_negative"),
)

catalog_version = sa.Table(
    "catalog_version",
    metadata,
    _single(),
    sa.Column("version", sa.BigInteger, nullable=False),
    _is_single(),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("decided_at", _TIME, primary_key=True),
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
    sa.Column("received_at", _TIME, nullable=False, server_default=_NOW),
    sa.Column("value_micros", sa.BigInteger),
    sa.Column("quarantined_by", sa.Text),
    _one_of("type", EVENT_TYPES),
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
    sa.Column("recorded_at", _TIME, primary_key=True),
    sa.Column("lowest_running", Xid8, nullable=False),
)
"""Every transaction below `lowest_running` had ended at `recorded_at`: PostgreSQL calls it xmin,
which no column of a table may be called."""

ad_statistics = sa.Table(
    "ad_statistics",
    metadata,
    sa.Column("hour", _TIME, primary_key=True),
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
    _single(),
    sa.Column("xid", Xid8, nullable=False),
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("complete_until", _TIME),
    sa.Column("pending_xid", Xid8),
    sa.Column("pending_at", _TIME),
    sa.Column("moved_at", _TIME, nullable=False, server_default=_NOW),
    _is_single(),
)

set_aside = sa.Table(
    "set_aside",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("xid", Xid8, nullable=False, server_default=sa.text("pg_current_xact_id()")),
    sa.Column("stored_xid", Xid8, nullable=False),
    sa.Column("decided_at", _TIME, nullable=False),
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

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("parent_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id")),
    sa.Column("schema_hash", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("manifest", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("expired_at", _TIME),
    _one_of("verdict", VERDICTS),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("snapshot_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("below_id", sa.BigInteger, sa.ForeignKey("promotions.id")),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("promoted_at", _TIME, nullable=False),
    _one_of("reason", PROMOTION_REASONS),
)

serving = sa.Table(
    "serving",
    metadata,
    _single(),
    sa.Column("promotion_id", sa.BigInteger, sa.ForeignKey("promotions.id"), nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("head_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    _is_single(),
)

comparisons = sa.Table(
    "comparisons",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column(
        "snapshot_id",
        UUID(as_uuid=True),
        sa.ForeignKey("snapshots.id"),
        nullable=False,
        index=True,
    ),
    sa.Column("incumbent_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("share", sa.Double),
    sa.Column("rule", JSONB, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("started_at", _TIME, nullable=False),
    sa.Column("measured_to", _TIME, nullable=False),
    sa.Column("sums", JSONB, nullable=False),
    sa.Column("judgement", JSONB),
    sa.Column("ended_at", _TIME),
    sa.Column("outcome", sa.Text),
    sa.Column("ended_by", sa.Text),
    sa.Column("end_reason", sa.Text),
    _one_of("kind", COMPARISON_KINDS),
    _one_of("outcome", COMPARISON_OUTCOMES),
    sa.CheckConstraint("share > 0 AND share < 1", name="share_range"),
    sa.CheckConstraint("(kind = 'canary') = (share IS NOT NULL)", name="share_of_canaries"),
    sa.CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="outcome_of_ended"),
    sa.Index(
        "ix_comparisons_running",
        "kind",
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)
"""A canary or a shadow: `sums` are those of all its slices, `judgement` the last one."""

comparison_slices = sa.Table(
    "comparison_slices",
    metadata,
    sa.Column("comparison_id", sa.BigInteger, sa.ForeignKey("comparisons.id"), primary_key=True),
    sa.Column("measured_from", _TIME, primary_key=True),
    sa.Column("measured_to", _TIME, nullable=False),
    sa.Column("sums", JSONB, nullable=False),
)

serving_history = sa.Table(
    "serving_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", _TIME, nullable=False, server_default=sa.func.clock_timestamp(), index=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject_id", UUID(as_uuid=True), nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("canary_id", UUID(as_uuid=True)),
    sa.Column("share", sa.Double),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)
"""What answered after each change: a row is the whole state that held until the next one."""

training_cursor = sa.Table(
    "training_cursor",
    metadata,
    _single(),
    sa.Column("impressions_xid", Xid8, nullable=False),
    sa.Column("clicks_xid", Xid8, nullable=False),
    sa.Column("system_identifier", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("moved_at", _TIME, nullable=False, server_default=_NOW),
    _is_single(),
)

retrain_runs = sa.Table(
    "retrain_runs",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("overrides", JSONB, nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id")),
    sa.Column("events", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("reasons", JSONB, nullable=False, server_default="[]"),
    sa.Column("requested_at", _TIME, nullable=False),
    sa.Column("started_at", _TIME),
    sa.Column("finished_at", _TIME),
    _one_of("state", RUN_STATES),
    sa.CheckConstraint("events >= 0", name="events_not_negative"),
)

job_ticks = sa.Table(
    "job_ticks",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("tick", _TIME, primary_key=True),
    sa.Column("claimed_at", _TIME, nullable=False, server_default=_NOW),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("scopes", JSONB, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("revoked_at", _TIME),
    sa.Column("expires_at", _TIME),
    sa.Column("requests_per_s", sa.Double),
    sa.Column("replaces", UUID(as_uuid=True), sa.ForeignKey("api_keys.id")),
    sa.CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
    sa.CheckConstraint(
        "requests_per_s > 0 AND requests_per_s < 'Infinity'", name="requests_per_s_positive"
    ),
)

token_keys = sa.Table(
    "token_keys",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("secret", BYTEA, nullable=False),
    sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
    sa.CheckConstraint("id BETWEEN 0 AND 255", name="id_range"),
    sa.CheckConstraint("octet_length(secret) = 32", name="secret_length"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", _TIME, nullable=False, server_default=_NOW),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("before", JSONB),
    sa.Column("after", JSONB),
    sa.Index(None, "subject", "id"),
    sa.Index(None, "actor", "id"),
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("catalog_version", sa.BigInteger, nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True)),
    sa.Column("canary_id", sa.BigInteger),
    sa.Column("seen_at", _TIME, nullable=False),
    sa.Column("serves_alone_s", sa.Double, nullable=False, server_default=sa.text("50")),
    sa.Column("erasure_version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("hash", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("missing", sa.BigInteger, nullable=False),
    sa.Column("feature", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, unique=True),
    sa.Column("erased_at", _TIME, nullable=False, server_default=_NOW),
    sa.Column("events_at", _TIME),
    sa.Column("events", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("events >= 0", name="events_not_negative"),
)
"""Erased values by their hashes; `missing`: the hash of their feature without a value; `events`:
stored events from which the value was taken, all of them by `events_at`."""
