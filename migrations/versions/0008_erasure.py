"""Erasure: which values of users are erased, and which worker has applied how many of these.

Revision: 0008, after 0007.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_UP = (
    """
    CREATE TABLE erasures (
        hash bigint NOT NULL,
        missing bigint NOT NULL,
        feature text NOT NULL,
        version bigint NOT NULL,
        erased_at timestamptz NOT NULL DEFAULT now(),
        events_at timestamptz,
        events bigint NOT NULL DEFAULT 0,
        CONSTRAINT pk_erasures PRIMARY KEY (hash),
        CONSTRAINT uq_erasures_version UNIQUE (version),
        CONSTRAINT ck_erasures_events_not_negative CHECK (events >= 0)
    )
    """,
    "ALTER TABLE workers ADD COLUMN erasure_version bigint NOT NULL DEFAULT 0",
)
_DOWN = (
    "ALTER TABLE workers DROP COLUMN erasure_version",
    "DROP TABLE erasures",
)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
