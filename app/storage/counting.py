"""Counting the events into statistics, each exactly once, a little at a time.

As in training, a cursor stands at a transaction id, and a count takes what lies between it and the
lowest id that is still running: all of that has ended, so nothing can slip behind the cursor. The
counts are added and the cursor is moved by one transaction, so a crash anywhere changes nothing.
No attribution window is waited for: a click counts by itself, in the hour of its decision.

An event that is quarantined when it is stored is not counted; its release gives it the id of a new
transaction, by which it is. One that is quarantined *later* may have been counted or not, and its
row does not tell. So whoever sets it aside leaves an entry with both ids: it counts 1 at the id of
its storing, if that is not behind the cursor, and takes 1 away at the id of the setting aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.engine import Database, at, maybe, ms_of
from app.storage.errors import ClusterChanged, CursorMoved

_LOCK = 0x41445343_53544154  # "ADSCSTAT": one process counts at a time
REBASED_IDS = 500
"""So many ids, from 1 on, are for events of another cluster; a new one begins with above 700."""

_COUNT_S = 600.0
_MEMORY = "64MB"
"""Of one count in the database: groups of some ten thousand ads."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one count did. `complete_until_ms`: see `app.storage.statistics.Performance`.

    `events`: rows of the events table looked at; `is_cut`: more were ready than were asked for.
    """

    events: int
    complete_until_ms: int | None
    is_cut: bool


_BOUNDS = """
SELECT xid, complete_until, pending_xid, pending_at,
    statistics_cursor.system_identifier AS recorded,
    (SELECT system_identifier FROM pg_control_system()) AS present,
    pg_snapshot_xmin(pg_current_snapshot()) AS lowest_running,
    pg_snapshot_xmax(pg_current_snapshot()) AS next_xid, now() AS present_time
FROM statistics_cursor
"""

_READY = """
SELECT count(*) AS events, max(xid) AS last, min(xid) AS first
FROM (SELECT xid FROM events WHERE xid >= $1 AND xid < $2 ORDER BY xid LIMIT $3) AS ready
"""

_COLUMNS = """
decided_at, ad_id, placement, snapshot_id, catalog_version, type, price_micros, value_micros
"""

_ENTRIES = f"""
SELECT {_COLUMNS}, 1 AS sign FROM events
WHERE quarantined_by IS NULL AND xid >= $1 AND xid < $2
UNION ALL
SELECT {_COLUMNS}, 1 FROM set_aside WHERE stored_xid >= $1 AND stored_xid < $2
UNION ALL
SELECT {_COLUMNS}, -1 FROM set_aside WHERE xid >= $1 AND xid < $2
"""  # noqa: S608 - the names are those of the columns

# A click of a CPC ad costs its price, an impression of a CPM ad a thousandth of it. Which of them
# an ad was when it was decided is what it is now, unless its type changed after that version of the
# catalog. Rows in the order of the key: two who add to the same rows never wait in a circle.
_ADD = """
WITH entries AS ({entries}), types AS (
    SELECT ad_id, version AS until, before,
        lag(version, 1, 0::bigint) OVER (PARTITION BY ad_id ORDER BY version) AS since
    FROM bid_type_changes
), priced AS (
    SELECT entries.*, coalesce(types.before, ads.bid_type, 'cpc') AS bid_type
    FROM entries LEFT JOIN ads ON ads.id = entries.ad_id LEFT JOIN types
        ON types.ad_id = entries.ad_id AND catalog_version >= since AND catalog_version < until
)
INSERT INTO ad_statistics AS known (hour, ad_id, placement, snapshot_id, impressions, clicks,
    conversions, closes, conversion_value_micros, spend_thousandths)
SELECT date_trunc('hour', decided_at, 'UTC'), ad_id, placement, snapshot_id,
    coalesce(sum(sign) FILTER (WHERE type = 'impression'), 0),
    coalesce(sum(sign) FILTER (WHERE type = 'click'), 0),
    coalesce(sum(sign) FILTER (WHERE type = 'conversion'), 0),
    coalesce(sum(sign) FILTER (WHERE type = 'close'), 0),
    coalesce(sum(sign * value_micros::numeric), 0),
    coalesce(sum(sign * 1000 * price_micros::numeric)
        FILTER (WHERE type = 'click' AND bid_type = 'cpc'), 0)
    + coalesce(sum(sign * price_micros::numeric)
        FILTER (WHERE type = 'impression' AND bid_type = 'cpm'), 0)
FROM priced GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
ON CONFLICT (hour, ad_id, placement, snapshot_id) DO UPDATE SET
    impressions = known.impressions + excluded.impressions,
    clicks = known.clicks + excluded.clicks,
    conversions = known.conversions + excluded.conversions,
    closes = known.closes + excluded.closes,
    conversion_value_micros = known.conversion_value_micros + excluded.conversion_value_micros,
    spend_thousandths = known.spend_thousandths + excluded.spend_thousandths
"""

# Not now(): events that came between the beginning and the first look were counted as well, and the
# time is what tells them from those of another cluster after a restore.
_MOVE = """
UPDATE statistics_cursor SET xid = $2, complete_until = $3, pending_xid = $4, pending_at = $5,
    moved_at = clock_timestamp()
WHERE xid = $1
"""


async def count(database: Database, max_events: int = 1_000_000) -> Counted | None:
    """Add the events that are ready to the statistics; None while another process does.

    At most `max_events` of them, unless one transaction alone has more. Raises `ClusterChanged`,
    and `CursorMoved` when somebody else counted them meanwhile.
    """
    async with database.session(command_timeout=_COUNT_S) as connection:
        # Before the transaction, or what it sees might be older than what the other one has done.
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            return None
        async with connection.transaction(isolation="repeatable_read"):
            return await _count(connection, max_events)


async def _count(connection: Any, max_events: int) -> Counted:
    row = await connection.fetchrow(_BOUNDS)
    if row["recorded"] != row["present"]:
        raise ClusterChanged(row["recorded"], row["present"])
    start = row["xid"]
    ready, upper = await _ready(connection, start, row["lowest_running"], max_events)
    await connection.execute(f"SET LOCAL work_mem = '{_MEMORY}'")
    await connection.execute(_ADD.format(entries=_ENTRIES), start, upper)
    await connection.execute("DELETE FROM set_aside WHERE xid < $1", upper)
    complete = _completeness(row, upper)
    if await connection.execute(_MOVE, start, upper, *complete) != "UPDATE 1":
        raise CursorMoved(f"the statistics cursor is not at {start} any more; count again")
    return Counted(ready, maybe(ms_of, complete[0]), upper < row["lowest_running"])


async def _ready(
    connection: Any, start: int, lowest_running: int, max_events: int
) -> tuple[int, int]:
    """How many events there are to look at, and the id to stop at: transactions count whole."""
    row = await connection.fetchrow(_READY, start, lowest_running, max_events + 1)
    if row["events"] <= max_events:
        return row["events"], max(lowest_running, start)
    # The last transaction may not fit any more; the first one always does.
    upper = row["last"] if row["last"] > row["first"] else row["first"] + 1
    return await connection.fetchval(
        "SELECT count(*) FROM events WHERE xid >= $1 AND xid < $2", start, upper
    ), upper


def _completeness(row: Any, upper: int) -> tuple[datetime | None, int | None, datetime | None]:
    """`complete_until` now, and the next time that may become it once the cursor has its id.

    Whatever was acknowledged before a moment has an id below the next one to be given then. If all
    of them have ended, the count is complete until that moment; else they have when the cursor has
    come as far.
    """
    if upper >= row["next_xid"]:
        return row["present_time"], None, None
    if row["pending_xid"] is None:
        return row["complete_until"], row["next_xid"], row["present_time"]
    if upper >= row["pending_xid"]:
        return row["pending_at"], row["next_xid"], row["present_time"]
    return row["complete_until"], row["pending_xid"], row["pending_at"]


async def forget(database: Database, before_ms: int) -> int:
    """Delete the statistics of the hours before; how many rows there were."""
    async with database.session(command_timeout=_COUNT_S) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        status: str = await connection.execute(
            "DELETE FROM ad_statistics WHERE hour < $1", at(before_ms)
        )
    return int(status.rpartition(" ")[2])


async def rebase(connection: AsyncConnection) -> None:
    """After a restore into another cluster, inside its transaction: count all that is left.

    The transaction must be REPEATABLE READ and give every event that it sees an id of at most
    `REBASED_IDS`: those are counted, and stand behind the cursor.
    """
    for statement in _REBASE:
        await connection.execute(sa.text(statement))


# An id below the cursor says that an event was counted only if it is of the cluster of before: what
# came since is told by its time.
_REBASE = (
    _ADD.format(
        entries=f"""
        SELECT {_COLUMNS}, 1 AS sign FROM events WHERE quarantined_by IS NULL
            AND (xid >= (SELECT xid FROM statistics_cursor)
                OR received_at > (SELECT moved_at FROM statistics_cursor))
        UNION ALL
        SELECT {_COLUMNS}, 1 FROM set_aside
            WHERE stored_xid >= (SELECT xid FROM statistics_cursor)
        UNION ALL
        SELECT {_COLUMNS}, -1 FROM set_aside WHERE xid >= (SELECT xid FROM statistics_cursor)
        """  # noqa: S608 - the names are those of the columns
    ),
    "DELETE FROM set_aside",
    f"""
    UPDATE statistics_cursor SET xid = '{REBASED_IDS + 1}', moved_at = now(),
        complete_until = now(), pending_xid = NULL, pending_at = NULL,
        system_identifier = (SELECT system_identifier FROM pg_control_system())
    """,  # noqa: S608 - a number of ours
)
