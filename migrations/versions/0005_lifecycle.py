"""Lifecycle: canaries and shadows, what they measured, and which snapshot answered when.

Revision: 0005, after 0004.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE promotions DROP CONSTRAINT ck_promotions_reason_known",
    """
    ALTER TABLE promotions ADD CONSTRAINT ck_promotions_reason_known
        CHECK (reason IN ('genesis', 'training', 'promotion', 'rollback', 'canary'))
    """,
    "ALTER TABLE workers ADD COLUMN canary_id bigint",
    """
    CREATE TABLE comparisons (
        id bigint GENERATED ALWAYS AS IDENTITY,
        kind text NOT NULL,
        snapshot_id uuid NOT NULL,
        incumbent_id uuid NOT NULL,
        share double precision,
        rule jsonb NOT NULL,
        actor text NOT NULL,
        reason text NOT NULL,
        started_at timestamptz NOT NULL,
        measured_to timestamptz NOT NULL,
        sums jsonb NOT NULL,
        judgement jsonb,
        ended_at timestamptz,
        outcome text,
        ended_by text,
        end_reason text,
        CONSTRAINT pk_comparisons PRIMARY KEY (id),
        CONSTRAINT fk_comparisons_snapshot_id
            FOREIGN KEY (snapshot_id) REFERENCES snapshots (id),
        CONSTRAINT fk_comparisons_incumbent_id
            FOREIGN KEY (incumbent_id) REFERENCES snapshots (id),
        CONSTRAINT ck_comparisons_kind_known CHECK (kind IN ('canary', 'shadow')),
        CONSTRAINT ck_comparisons_outcome_known
            CHECK (outcome IN ('promoted', 'rolled_back', 'superseded', 'ended')),
        CONSTRAINT ck_comparisons_share_range CHECK (share > 0 AND share < 1),
        CONSTRAINT ck_comparisons_share_of_canaries
            CHECK ((kind = 'canary') = (share IS NOT NULL)),
        CONSTRAINT ck_comparisons_outcome_of_ended
            CHECK ((ended_at IS NULL) = (outcome IS NULL))
    )
    """,
    "CREATE INDEX ix_comparisons_snapshot_id ON comparisons (snapshot_id)",
    "CREATE UNIQUE INDEX ix_comparisons_running ON comparisons (kind) WHERE ended_at IS NULL",
    """
    CREATE TABLE comparison_slices (
        comparison_id bigint NOT NULL,
        measured_from timestamptz NOT NULL,
        measured_to timestamptz NOT NULL,
        sums jsonb NOT NULL,
        CONSTRAINT pk_comparison_slices PRIMARY KEY (comparison_id, measured_from),
        CONSTRAINT fk_comparison_slices_comparison_id
            FOREIGN KEY (comparison_id) REFERENCES comparisons (id)
    )
    """,
    """
    CREATE TABLE serving_history (
        id bigint GENERATED ALWAYS AS IDENTITY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        action text NOT NULL,
        subject_id uuid NOT NULL,
        snapshot_id uuid NOT NULL,
        pinned boolean NOT NULL,
        canary_id uuid,
        share double precision,
        actor text NOT NULL,
        reason text NOT NULL,
        CONSTRAINT pk_serving_history PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX ix_serving_history_at ON serving_history (at)",
    """
    INSERT INTO serving_history (at, action, subject_id, snapshot_id, pinned, actor, reason)
    SELECT promoted_at, reason, snapshot_id, snapshot_id, reason = 'rollback', actor, ''
    FROM promotions ORDER BY id
    """,
)

_DOWN = (
    "DROP TABLE serving_history",
    "DROP TABLE comparison_slices",
    "DROP TABLE comparisons",
    "ALTER TABLE workers DROP COLUMN canary_id",
    "UPDATE promotions SET reason = 'promotion' WHERE reason = 'canary'",
    "ALTER TABLE promotions DROP CONSTRAINT ck_promotions_reason_known",
    """
    ALTER TABLE promotions ADD CONSTRAINT ck_promotions_reason_known
        CHECK (reason IN ('genesis', 'training', 'promotion', 'rollback'))
    """,
)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
