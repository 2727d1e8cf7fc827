"""Keys, the audit, and the workers that serve."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, UUID

from app.storage.tables.parts import (
    NOW,
    TIME,
    metadata,
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("scopes", JSONB, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("revoked_at", TIME),
    sa.Column("expires_at", TIME),
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
    sa.Column("created_at", TIME, nullable=False, server_default=NOW),
    sa.CheckConstraint("id BETWEEN 0 AND 255", name="id_range"),
    sa.CheckConstraint("octet_length(secret) = 32", name="secret_length"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", TIME, nullable=False, server_default=NOW),
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
    sa.Column("seen_at", TIME, nullable=False),
    sa.Column("serves_alone_s", sa.Double, nullable=False, server_default=sa.text("50")),
    sa.Column("erasure_version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
)
