"""Daily schedules of ads; how long a worker serves without word from the database.

Revision: 0007, after 0006.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE ads ADD COLUMN schedule jsonb",
    "ALTER TABLE workers ADD COLUMN serves_alone_s double precision NOT NULL DEFAULT 50",
)
_DOWN = (
    "ALTER TABLE workers DROP COLUMN serves_alone_s",
    "ALTER TABLE ads DROP COLUMN schedule",
)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
