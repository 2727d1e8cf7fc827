"""Erasure.

Revision: 0008, after 0007.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_UP: tuple[str, ...] = ()
_DOWN: tuple[str, ...] = ()


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
