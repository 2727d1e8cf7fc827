"""Placements: floors and house ads.

Revision: 0002, after 0001.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE placements (
            name text NOT NULL,
            floor_micros bigint NOT NULL,
            house_ads jsonb NOT NULL,
            version bigint NOT NULL,
            CONSTRAINT pk_placements PRIMARY KEY (name),
            CONSTRAINT ck_placements_name_not_empty CHECK (name <> ''),
            CONSTRAINT ck_placements_floor_micros_not_negative CHECK (floor_micros >= 0)
        )
        """
    )
    op.execute("CREATE INDEX ix_placements_version ON placements (version)")


def downgrade() -> None:
    op.execute("DROP TABLE placements")
