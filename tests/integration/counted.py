"""A catalog, events of it, and what the statistics of them should be."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa

from app.ids import uuid7
from app.storage import partitions, statistics
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.events import EventWriter
from app.storage.statistics import PerformanceQuery
from models.types import Ad, Advertiser, Campaign, Event, EventType
from tests.integration.making import DAY_MS, event, now_ms

WRITE = """
INSERT INTO events (decided_at, decision_id, slot, type, ad_id, snapshot_id, catalog_version,
    price_micros, propensity, placement, features)
VALUES (now(), $1, 0, 'impression', 3, $1, 1, 5, 1, 'late', $2)
"""
WRITE_YESTERDAY = WRITE.replace("now()", "now() - interval '1 day'")

SNAPSHOTS = (UUID(int=1), UUID(int=2))

STORED = """
SELECT date_trunc('hour', decided_at, 'UTC') AS hour, events.ad_id, placement, snapshot_id,
    count(*) FILTER (WHERE type = 'impression') AS impressions,
    count(*) FILTER (WHERE type = 'click') AS clicks,
    count(*) FILTER (WHERE type = 'conversion') AS conversions,
    count(*) FILTER (WHERE type = 'close') AS closes,
    coalesce(sum(value_micros), 0) AS conversion_value_micros,
    sum(CASE WHEN type = 'click' AND events.ad_id <> 2 THEN 1000 * price_micros
        WHEN type = 'impression' AND events.ad_id = 2 THEN price_micros ELSE 0 END)
        AS spend_thousandths
FROM events WHERE quarantined_by IS NULL
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
"""What the statistics should be: ad 2 pays by the thousand impressions, others by the click."""

KEPT = """
SELECT * FROM ad_statistics WHERE impressions <> 0 OR clicks <> 0 OR conversions <> 0
    OR closes <> 0 OR conversion_value_micros <> 0 OR spend_thousandths <> 0
ORDER BY 1, 2, 3, 4
"""


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    async with database.begin() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(query))]


async def execute(database: Database, statement: str) -> None:
    """One statement in a transaction of its own."""
    async with database.begin() as connection:
        await connection.execute(sa.text(statement))


async def fill_catalog(database: Database) -> None:
    """Ads 1 to 4 of two campaigns; ad 2 bids by the thousand impressions."""
    ads = [
        Ad(n, 1 + n % 2, 1, bid_micros=5000, bid_type="cpm" if n == 2 else "cpc")
        for n in range(1, 5)
    ]
    campaigns = [Campaign(1, 1), Campaign(2, 1)]
    await Catalog(database).import_catalog([Advertiser(1)], campaigns, ads, "test")
    await partitions.ensure_partitions(database, now_ms())


def made(type_: EventType = "impression", ad_id: int = 1, **given: Any) -> Event:
    """An event of an ad of the catalog."""
    fields = {"ad_id": ad_id, "catalog_version": 1, "snapshot_id": SNAPSHOTS[0], **given}
    return msgspec.structs.replace(event(type_), **fields)


def of(shown: Event, type_: EventType, **given: Any) -> Event:
    """Another event of the same decided ad."""
    return msgspec.structs.replace(shown, type=type_, **given)


async def write(database: Database, *events: Event) -> None:
    """Store events, in one transaction."""
    writer = EventWriter(database, linger_s=0.0)
    await writer.write(events)
    await writer.close()


Begun = tuple[Any, Any]


async def begun(database: Database, query: str = "") -> Begun:
    """A transaction that has written an event and is open."""
    connection = await database.raw()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(query or WRITE, uuid7(now_ms()), b"open")
    return connection, transaction


async def ended(begun: Begun) -> None:
    """Commit what was begun."""
    connection, transaction = begun
    await transaction.commit()
    await connection.close()


async def totals(database: Database) -> statistics.PerformanceRow:
    """The statistics of all time, in one row."""
    query = PerformanceQuery(0, now_ms() + 10 * DAY_MS)
    return (await statistics.performance(database, query)).rows[0]
