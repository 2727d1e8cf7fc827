"""The catalog, events, snapshots and their bookkeeping.

Revision: 0001, the first.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    """
    CREATE TABLE advertisers (
        id bigint NOT NULL,
        state text NOT NULL,
        name text NOT NULL,
        version bigint NOT NULL,
        CONSTRAINT pk_advertisers PRIMARY KEY (id),
        CONSTRAINT ck_advertisers_id_range CHECK (id BETWEEN 1 AND 9007199254740991),
        CONSTRAINT ck_advertisers_state_known CHECK (state IN ('active', 'paused', 'retired'))
    )
    """,
    "CREATE INDEX ix_advertisers_version ON advertisers (version)",
    """
    CREATE TABLE campaigns (
        id bigint NOT NULL,
        advertiser_id bigint NOT NULL,
        state text NOT NULL,
        name text NOT NULL,
        version bigint NOT NULL,
        CONSTRAINT pk_campaigns PRIMARY KEY (id),
        CONSTRAINT fk_campaigns_advertiser_id
            FOREIGN KEY (advertiser_id) REFERENCES advertisers (id),
        CONSTRAINT ck_campaigns_id_range CHECK (id BETWEEN 1 AND 9007199254740991),
        CONSTRAINT ck_campaigns_state_known CHECK (state IN ('active', 'paused', 'retired'))
    )
    """,
    "CREATE INDEX ix_campaigns_advertiser_id ON campaigns (advertiser_id)",
    "CREATE INDEX ix_campaigns_version ON campaigns (version)",
    """
    CREATE TABLE ads (
        id bigint NOT NULL,
        campaign_id bigint NOT NULL,
        bid_micros bigint NOT NULL,
        bid_type text NOT NULL,
        state text NOT NULL,
        features jsonb NOT NULL,
        targeting jsonb NOT NULL,
        flight_start timestamptz,
        flight_end timestamptz,
        creative jsonb NOT NULL,
        version bigint NOT NULL,
        features_version bigint NOT NULL,
        CONSTRAINT pk_ads PRIMARY KEY (id),
        CONSTRAINT fk_ads_campaign_id FOREIGN KEY (campaign_id) REFERENCES campaigns (id),
        CONSTRAINT ck_ads_id_range CHECK (id BETWEEN 1 AND 9007199254740991),
        CONSTRAINT ck_ads_state_known CHECK (state IN ('active', 'paused', 'retired')),
        CONSTRAINT ck_ads_bid_type_known CHECK (bid_type IN ('cpc', 'cpm')),
        CONSTRAINT ck_ads_bid_micros_positive CHECK (bid_micros >= 1),
        CONSTRAINT ck_ads_flight_ordered CHECK (flight_end > flight_start)
    )
    """,
    "CREATE INDEX ix_ads_campaign_id ON ads (campaign_id)",
    "CREATE INDEX ix_ads_version ON ads (version)",
    """
    CREATE TABLE catalog_version (
        single boolean NOT NULL DEFAULT true,
        version bigint NOT NULL,
        CONSTRAINT pk_catalog_version PRIMARY KEY (single),
        CONSTRAINT ck_catalog_version_single_row CHECK (single)
    )
    """,
    "INSERT INTO catalog_version (version) VALUES (0)",
    """
    CREATE TABLE events (
        decided_at timestamptz NOT NULL,
        decision_id uuid NOT NULL,
        slot smallint NOT NULL,
        type text NOT NULL,
        ad_id bigint NOT NULL,
        snapshot_id uuid NOT NULL,
        catalog_version bigint NOT NULL,
        price_micros bigint NOT NULL,
        propensity real NOT NULL,
        placement text NOT NULL,
        features bytea,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        received_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_events PRIMARY KEY (decided_at, decision_id, slot, type),
        CONSTRAINT ck_events_type_known CHECK (type IN ('impression', 'click', 'conversion')),
        CONSTRAINT ck_events_ad_id_range CHECK (ad_id BETWEEN 1 AND 9007199254740991),
        CONSTRAINT ck_events_slot_not_negative CHECK (slot >= 0),
        CONSTRAINT ck_events_price_micros_not_negative CHECK (price_micros >= 0),
        CONSTRAINT ck_events_propensity_range CHECK (propensity > 0 AND propensity <= 1),
        CONSTRAINT ck_events_features_of_impressions
            CHECK ((type = 'impression') = (features IS NOT NULL))
    ) PARTITION BY RANGE (decided_at)
    """,
    "CREATE INDEX ix_events_xid ON events (xid)",
    """
    CREATE TABLE horizons (
        recorded_at timestamptz NOT NULL,
        lowest_running xid8 NOT NULL,
        CONSTRAINT pk_horizons PRIMARY KEY (recorded_at)
    )
    """,
    """
    CREATE TABLE snapshots (
        id uuid NOT NULL,
        parent_id uuid,
        schema_hash text NOT NULL,
        verdict text NOT NULL,
        manifest jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        expired_at timestamptz,
        CONSTRAINT pk_snapshots PRIMARY KEY (id),
        CONSTRAINT fk_snapshots_parent_id FOREIGN KEY (parent_id) REFERENCES snapshots (id),
        CONSTRAINT ck_snapshots_verdict_known
            CHECK (verdict IN ('accepted', 'repaired', 'refused'))
    )
    """,
    """
    CREATE TABLE promotions (
        id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        snapshot_id uuid NOT NULL,
        below_id bigint,
        reason text NOT NULL,
        actor text NOT NULL,
        promoted_at timestamptz NOT NULL,
        CONSTRAINT pk_promotions PRIMARY KEY (id),
        CONSTRAINT fk_promotions_snapshot_id FOREIGN KEY (snapshot_id) REFERENCES snapshots (id),
        CONSTRAINT fk_promotions_below_id FOREIGN KEY (below_id) REFERENCES promotions (id),
        CONSTRAINT ck_promotions_reason_known
            CHECK (reason IN ('genesis', 'training', 'promotion', 'rollback'))
    )
    """,
    """
    CREATE TABLE serving (
        single boolean NOT NULL DEFAULT true,
        promotion_id bigint NOT NULL,
        snapshot_id uuid NOT NULL,
        head_id uuid NOT NULL,
        pinned boolean NOT NULL,
        CONSTRAINT pk_serving PRIMARY KEY (single),
        CONSTRAINT fk_serving_promotion_id FOREIGN KEY (promotion_id) REFERENCES promotions (id),
        CONSTRAINT fk_serving_snapshot_id FOREIGN KEY (snapshot_id) REFERENCES snapshots (id),
        CONSTRAINT fk_serving_head_id FOREIGN KEY (head_id) REFERENCES snapshots (id),
        CONSTRAINT ck_serving_single_row CHECK (single)
    )
    """,
    """
    CREATE TABLE training_cursor (
        single boolean NOT NULL DEFAULT true,
        impressions_xid xid8 NOT NULL,
        clicks_xid xid8 NOT NULL,
        system_identifier bigint NOT NULL,
        fence bigint NOT NULL,
        moved_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_training_cursor PRIMARY KEY (single),
        CONSTRAINT ck_training_cursor_single_row CHECK (single)
    )
    """,
    """
    INSERT INTO training_cursor (impressions_xid, clicks_xid, system_identifier, fence)
    SELECT '0', '0', system_identifier, 0 FROM pg_control_system()
    """,
    """
    CREATE TABLE retrain_runs (
        id uuid NOT NULL,
        state text NOT NULL,
        actor text NOT NULL,
        overrides jsonb NOT NULL,
        snapshot_id uuid,
        events bigint NOT NULL DEFAULT 0,
        reasons jsonb NOT NULL DEFAULT '[]',
        requested_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        CONSTRAINT pk_retrain_runs PRIMARY KEY (id),
        CONSTRAINT fk_retrain_runs_snapshot_id
            FOREIGN KEY (snapshot_id) REFERENCES snapshots (id),
        CONSTRAINT ck_retrain_runs_state_known CHECK (state IN (
            'requested', 'running', 'accepted', 'repaired', 'refused', 'skipped', 'empty', 'failed'
        )),
        CONSTRAINT ck_retrain_runs_events_not_negative CHECK (events >= 0)
    )
    """,
    """
    CREATE TABLE job_ticks (
        job text NOT NULL,
        tick timestamptz NOT NULL,
        claimed_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_job_ticks PRIMARY KEY (job, tick)
    )
    """,
    """
    CREATE TABLE api_keys (
        id uuid NOT NULL,
        name text NOT NULL,
        sha256 bytea NOT NULL,
        scopes jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        revoked_at timestamptz,
        CONSTRAINT pk_api_keys PRIMARY KEY (id),
        CONSTRAINT uq_api_keys_sha256 UNIQUE (sha256),
        CONSTRAINT ck_api_keys_sha256_length CHECK (octet_length(sha256) = 32)
    )
    """,
    """
    CREATE TABLE token_keys (
        id smallint NOT NULL,
        secret bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_token_keys PRIMARY KEY (id),
        CONSTRAINT ck_token_keys_id_range CHECK (id BETWEEN 0 AND 255),
        CONSTRAINT ck_token_keys_secret_length CHECK (octet_length(secret) = 32)
    )
    """,
    """
    CREATE TABLE audit (
        id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
        at timestamptz NOT NULL DEFAULT now(),
        actor text NOT NULL,
        action text NOT NULL,
        subject text NOT NULL,
        before jsonb,
        after jsonb,
        CONSTRAINT pk_audit PRIMARY KEY (id)
    )
    """,
    """
    CREATE TABLE workers (
        id uuid NOT NULL,
        host text NOT NULL,
        pid integer NOT NULL,
        catalog_version bigint NOT NULL,
        snapshot_id uuid,
        seen_at timestamptz NOT NULL,
        CONSTRAINT pk_workers PRIMARY KEY (id)
    )
    """,
)

_NAMES = (
    "workers, audit, token_keys, api_keys, job_ticks, retrain_runs, training_cursor, serving,"
    " promotions, snapshots, horizons, events, catalog_version, ads, campaigns, advertisers"
)


def upgrade() -> None:
    for statement in _TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute(f"DROP TABLE {_NAMES}")
