"""Keys.

Revision: 0006, after 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
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
