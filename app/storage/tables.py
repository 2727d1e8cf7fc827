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
PROMOTION_REASONS = ("genesis", "training", "promotion", "rollback")


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
    sa.CheckConstraint("octet_length(sha256) = 32", name="sha256_length"),
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
)

workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("catalog_version", sa.BigInteger, nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True)),
    sa.Column("seen_at", _TIME, nullable=False),
)
