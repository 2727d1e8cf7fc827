"""Keys that expire, have a rate of their own, and are replaced by others.

Revision: 0006, after 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE api_keys ADD COLUMN expires_at TIMESTAMPTZ",
    "ALTER TABLE api_keys ADD COLUMN requests_per_s DOUBLE PRECISION"
    " CONSTRAINT ck_api_keys_requests_per_s_positive"
    " CHECK (requests_per_s > 0 AND requests_per_s < 'Infinity')",
    "ALTER TABLE api_keys ADD COLUMN replaces UUID"
    " CONSTRAINT fk_api_keys_replaces REFERENCES api_keys (id)",
    "CREATE INDEX ix_audit_subject_id ON audit (subject, id)",
    "CREATE INDEX ix_audit_actor_id ON audit (actor, id)",
)
_DOWN = (
    "DROP INDEX ix_audit_actor_id",
    "DROP INDEX ix_audit_subject_id",
    "ALTER TABLE api_keys DROP COLUMN replaces",
    "ALTER TABLE api_keys DROP COLUMN requests_per_s",
    "ALTER TABLE api_keys DROP COLUMN expires_at",
)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
