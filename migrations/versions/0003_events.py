"""Events: closes, the value of a conversion, and the rule that quarantines one.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE events ADD COLUMN value_micros bigint",
    "ALTER TABLE events ADD COLUMN quarantined_by text",
    "ALTER TABLE events DROP CONSTRAINT ck_events_type_known",
    """
    ALTER TABLE events ADD CONSTRAINT ck_events_type_known
        CHECK (type IN ('impression', 'click', 'conversion', 'close'))
    """,
    """
    ALTER TABLE events ADD CONSTRAINT ck_events_value_micros_of_conversions
        CHECK (value_micros IS NULL OR (type = 'conversion' AND value_micros >= 0))
    """,
    """
    CREATE INDEX ix_events_quarantined_by ON events (quarantined_by, decided_at)
        WHERE quarantined_by IS NOT NULL
    """,
)

_DOWN = (
    "DELETE FROM events WHERE type = 'close' OR quarantined_by IS NOT NULL",
    "ALTER TABLE events DROP CONSTRAINT ck_events_value_micros_of_conversions",
    "ALTER TABLE events DROP CONSTRAINT ck_events_type_known",
    """
    ALTER TABLE events ADD CONSTRAINT ck_events_type_known
        CHECK (type IN ('impression', 'click', 'conversion'))
    """,
    "ALTER TABLE events DROP COLUMN value_micros",
    "ALTER TABLE events DROP COLUMN quarantined_by",
)


def upgrade() -> None:
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.execute(statement)
