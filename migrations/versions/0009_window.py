"""The attribution window that chunks are read with: other processes may have another setting.

Revision: 0009, after 0008.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_UP = ("ALTER TABLE training_cursor ADD COLUMN window_s double precision",)
_DOWN = ("ALTER TABLE training_cursor DROP COLUMN window_s",)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
