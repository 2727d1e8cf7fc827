"""Snapshots, which of them serve and served, comparisons of them, and the runs that make them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from app.storage.tables.parts import (
    COMPARISON_KINDS,
    COMPARISON_OUTCOMES,
    NOW,
    PROMOTION_REASONS,
    RUN_STATES,
    TIME,
    VERDICTS,
    is_single,
    metadata,
    one_of,
    single,
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", UUID(as_uuid=True), primary_key=True),
    sa.Column("parent_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id")),
    sa.Column("schema_hash", sa.Text, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("manifest", JSONB, nullable=False),
    sa.Column("created_at", TIME, nullable=False),
    sa.Column("expired_at", TIME),
    one_of("verdict", VERDICTS),
)

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("snapshot_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("below_id", sa.BigInteger, sa.ForeignKey("promotions.id")),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("promoted_at", TIME, nullable=False),
    one_of("reason", PROMOTION_REASONS),
)

serving = sa.Table(
    "serving",
    metadata,
    single(),
    sa.Column("promotion_id", sa.BigInteger, sa.ForeignKey("promotions.id"), nullable=False),
    sa.Column("snapshot_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("head_id", UUID(as_uuid=True), sa.ForeignKey("snapshots.id"), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    is_single(),
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
    sa.Column("started_at", TIME, nullable=False),
    sa.Column("measured_to", TIME, nullable=False),
    sa.Column("sums", JSONB, nullable=False),
    sa.Column("judgement", JSONB),
    sa.Column("ended_at", TIME),
    sa.Column("outcome", sa.Text),
    sa.Column("ended_by", sa.Text),
    sa.Column("end_reason", sa.Text),
    one_of("kind", COMPARISON_KINDS),
    one_of("outcome", COMPARISON_OUTCOMES),
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
    sa.Column("measured_from", TIME, primary_key=True),
    sa.Column("measured_to", TIME, nullable=False),
    sa.Column("sums", JSONB, nullable=False),
)

serving_history = sa.Table(
    "serving_history",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("at", TIME, nullable=False, server_default=sa.func.clock_timestamp(), index=True),
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
    sa.Column("requested_at", TIME, nullable=False),
    sa.Column("started_at", TIME),
    sa.Column("finished_at", TIME),
    one_of("state", RUN_STATES),
    sa.CheckConstraint("events >= 0", name="events_not_negative"),
)

job_ticks = sa.Table(
    "job_ticks",
    metadata,
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("tick", TIME, primary_key=True),
    sa.Column("claimed_at", TIME, nullable=False, server_default=NOW),
)
