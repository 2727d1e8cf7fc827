"""The catalog: advertisers, campaigns, ads, placements."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.storage.tables.parts import (
    BID_TYPES,
    STATES,
    TIME,
    id_range,
    is_single,
    metadata,
    one_of,
    own_id,
    single,
)

advertisers = sa.Table(
    "advertisers",
    metadata,
    own_id(),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    id_range(),
    one_of("state", STATES),
)

campaigns = sa.Table(
    "campaigns",
    metadata,
    own_id(),
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
    id_range(),
    one_of("state", STATES),
)

ads = sa.Table(
    "ads",
    metadata,
    own_id(),
    sa.Column(
        "campaign_id", sa.BigInteger, sa.ForeignKey("campaigns.id"), nullable=False, index=True
    ),
    sa.Column("bid_micros", sa.BigInteger, nullable=False),
    sa.Column("bid_type", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("features", JSONB, nullable=False),
    sa.Column("targeting", JSONB, nullable=False),
    sa.Column("flight_start", TIME),
    sa.Column("flight_end", TIME),
    sa.Column("creative", JSONB, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False, index=True),
    sa.Column("features_version", sa.BigInteger, nullable=False),
    sa.Column("schedule", JSONB(none_as_null=True)),
    id_range(),
    one_of("state", STATES),
    one_of("bid_type", BID_TYPES),
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
    single(),
    sa.Column("version", sa.BigInteger, nullable=False),
    is_single(),
)
