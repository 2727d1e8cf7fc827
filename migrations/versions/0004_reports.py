"""Statistics of the events by hour, ad, placement and snapshot, and what keeps them exact.

Revision: 0004, after 0003.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = (
    # Counters change often and no index holds them: with room on its page a row's next version
    # needs no new entries. Sums of money have no largest value, so that no event can break them.
    """
    CREATE TABLE ad_statistics (
        hour timestamptz NOT NULL,
        ad_id bigint NOT NULL,
        placement text NOT NULL,
        snapshot_id uuid NOT NULL,
        impressions bigint NOT NULL,
        clicks bigint NOT NULL,
        conversions bigint NOT NULL,
        closes bigint NOT NULL,
        conversion_value_micros numeric NOT NULL,
        spend_thousandths numeric NOT NULL,
        CONSTRAINT pk_ad_statistics PRIMARY KEY (hour, ad_id, placement, snapshot_id)
    ) WITH (fillfactor = 70)
    """,
    "CREATE INDEX ix_ad_statistics_ad_id_hour ON ad_statistics (ad_id, hour)",
    """
    CREATE TABLE statistics_cursor (
        single boolean NOT NULL DEFAULT true,
        xid xid8 NOT NULL,
        system_identifier bigint NOT NULL,
        complete_until timestamptz,
        pending_xid xid8,
        pending_at timestamptz,
        moved_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_statistics_cursor PRIMARY KEY (single),
        CONSTRAINT ck_statistics_cursor_single_row CHECK (single)
    )
    """,
    """
    INSERT INTO statistics_cursor (xid, system_identifier)
    SELECT '0', system_identifier FROM pg_control_system()
    """,
    """
    CREATE TABLE set_aside (
        id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        stored_xid xid8 NOT NULL,
        decided_at timestamptz NOT NULL,
        ad_id bigint NOT NULL,
        placement text NOT NULL,
        snapshot_id uuid NOT NULL,
        catalog_version bigint NOT NULL,
        type text NOT NULL,
        price_micros bigint NOT NULL,
        value_micros bigint,
        CONSTRAINT pk_set_aside PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE bid_type_changes (
        ad_id bigint NOT NULL,
        version bigint NOT NULL,
        before text NOT NULL,
        CONSTRAINT pk_bid_type_changes PRIMARY KEY (ad_id, version)
    )
    """,
    # A price is per click or per thousand impressions, as the ad's bid was when it was decided.
    """
    CREATE FUNCTION note_bid_type() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO bid_type_changes (ad_id, version, before)
        VALUES (OLD.id, NEW.version, OLD.bid_type) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER ads_bid_type AFTER UPDATE ON ads FOR EACH ROW
        WHEN (OLD.bid_type <> NEW.bid_type) EXECUTE FUNCTION note_bid_type()
    """,
)

_DOWN = (
    "DROP TRIGGER ads_bid_type ON ads",
    "DROP FUNCTION note_bid_type()",
    "DROP TABLE bid_type_changes, set_aside, statistics_cursor, ad_statistics",
)


def upgrade() -> None:
    """Run its statements."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Run its statements."""
    for statement in _DOWN:
        op.execute(statement)
