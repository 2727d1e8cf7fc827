"""Reading the events of one training step, each exactly once.

Every event carries the id of its transaction. Ids are given out in order, but transactions end in
any order, so "everything above the last id seen" would miss one that commits late. At each tick
the lowest id that is still running is recorded as a *horizon*: everything below it has ended. A
chunk is the impressions from the cursor up to the newest horizon that is at least one attribution
window old, so none can slip behind the cursor, and each had its whole window to be clicked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import audit, binary_rows, copying, counting
from app.storage.binary_rows import EPOCH_2000_MS, Impressions, Keys, clicked
from app.storage.engine import Database
from app.storage.errors import ClusterChanged, CursorMoved
from app.storage.tables import training_cursor
from models.types import Blobs, Bools, Float32s, Int64s

MOST_EVENTS = 1_000_000
"""Impressions of one chunk: to read and unpack them takes some 600 MB."""
_ROOM = 256
"""Bytes of an impression's row at most, if it has a few features; of more there is a copy."""
_MOST_ROOM = 1 << 28
_READ_S = 600.0
_FEW = 20_000
"""So many impressions look their clicks up each by itself: their times may span a long while."""
_EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far training has come, in transaction ids: both bounds are exclusive.

    `impressions`: every impression below it is accounted for; `clicks`: every click below it was
    looked at; `fence`: how often the cursor has moved.
    """

    impressions: int
    clicks: int
    fence: int


@dataclass(frozen=True, slots=True)
class Late:
    """m impressions whose click came after they had been accounted for, in order.

    `time_ms` and `ad_id`: int64 [m]; `features`: m packed feature blobs. The impression of a click
    that is late by more than the events are kept is gone, so its click is not among them.
    """

    time_ms: Int64s
    ad_id: Int64s
    features: Blobs

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, rows: Int64s) -> Late:
        """Some of them, in order."""
        return Late(self.time_ms[rows], self.ad_id[rows], self.features.take(rows))


@dataclass(frozen=True, slots=True)
class Chunk:
    """n impressions in the order of their decision (time, decision, slot), with their clicks.

    `time_ms`: int64 [n], when it was decided; `ad_id`: int64 [n]; `label`: float32 [n], 1 when it
    was clicked; `features`: n packed feature blobs. `late` are the impressions of before the chunk
    that were clicked only now. `is_cut` says that more was ready than was asked for. `start` is
    the cursor that it was read at, `end` the one to record.
    """

    start: Cursor
    end: Cursor
    time_ms: Int64s
    ad_id: Int64s
    label: Float32s
    features: Blobs
    late: Late
    is_cut: bool
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.time_ms)

    def only(self, rows: Bools, late_rows: Bools) -> Chunk:
        """Some of its impressions, the others left out; the cursor still moves past all."""
        kept, late = np.flatnonzero(rows), self.late.take(np.flatnonzero(late_rows))
        return replace(
            self,
            time_ms=self.time_ms[kept],
            ad_id=self.ad_id[kept],
            label=self.label[kept],
            features=self.features.take(kept),
            late=late,
            left_out=len(self) - len(kept) + len(self.late) - len(late),
        )


_RECORD = """
INSERT INTO horizons (recorded_at, lowest_running)
SELECT clock_timestamp(), pg_snapshot_xmin(pg_current_snapshot())
RETURNING lowest_running
"""

# The newest of the old ones stays: it may be the only one older than the window.
_FORGET = """
DELETE FROM horizons WHERE recorded_at < (
    SELECT max(recorded_at) FROM horizons
    WHERE recorded_at < clock_timestamp() - make_interval(secs => $1)
)
"""

_BOUNDS = """
SELECT impressions_xid, clicks_xid, fence, training_cursor.system_identifier AS recorded,
    (SELECT system_identifier FROM pg_control_system()) AS present,
    pg_snapshot_xmin(pg_current_snapshot()) AS lowest_running,
    (SELECT max(horizons.lowest_running) FROM horizons
     WHERE recorded_at <= clock_timestamp() - make_interval(secs => $1)) AS horizon
FROM training_cursor
"""

# The first transaction that does not fit any more; the first of all always fits. The index has them
# in order, so this takes as long as the chunk is large, however many wait behind it.
_CUT = """
WITH waiting AS NOT MATERIALIZED (
    SELECT xid FROM events
    WHERE type = 'impression' AND quarantined_by IS NULL AND xid >= $1 AND xid < $2
),
beyond AS (SELECT xid FROM waiting ORDER BY xid OFFSET $3 LIMIT 1)
SELECT CASE
    WHEN beyond.xid > (SELECT xid FROM waiting ORDER BY xid LIMIT 1) THEN beyond.xid
    ELSE (SELECT xid FROM waiting WHERE waiting.xid > beyond.xid ORDER BY xid LIMIT 1)
END AS cut FROM beyond
"""

_IMPRESSIONS = """
SELECT decided_at, decision_id, slot, ad_id, features FROM events
WHERE type = 'impression' AND quarantined_by IS NULL AND xid >= $1 AND xid < $2 LIMIT $3
"""

# A click has the decision time of its impression. Joining them in the database takes longer, since
# rows come in the order of their times already, which it cannot know.
_CLICKS_BETWEEN = """
SELECT decided_at, decision_id, slot FROM events
WHERE type = 'click' AND quarantined_by IS NULL AND xid < $1 AND decided_at BETWEEN $2 AND $3
"""

_CLICKS_AT = """
SELECT decided_at, decision_id, slot FROM events
WHERE type = 'click' AND quarantined_by IS NULL AND xid < $1 AND decided_at = ANY($2)
"""

_LATE = """
SELECT i.decided_at, i.decision_id, i.slot, i.ad_id, i.features
FROM events AS c JOIN events AS i
    ON i.decided_at = c.decided_at AND i.decision_id = c.decision_id AND i.slot = c.slot
    AND i.type = 'impression' AND i.quarantined_by IS NULL AND i.xid < $3
WHERE c.type = 'click' AND c.quarantined_by IS NULL AND c.xid >= $1 AND c.xid < $2
"""


async def record_horizon(database: Database, keep_s: float = 172_800.0) -> int:
    """Record the lowest transaction id that is still running, by the database's clock.

    Horizons older than `keep_s` are forgotten, which must be above the attribution window.
    """
    async with database.session() as connection:
        lowest: int = await connection.fetchval(_RECORD)
        await connection.execute(_FORGET, keep_s)
    return lowest


async def read_cursor(database: Database) -> Cursor:
    """The cursor. Raises `ClusterChanged` when it was written in another cluster."""
    async with database.session() as connection:
        return _cursor(await connection.fetchrow(_BOUNDS, 0.0))


async def read_chunk(
    database: Database, window_s: float, max_events: int = MOST_EVENTS, *, is_behind: bool = False
) -> Chunk:
    """The next chunk; empty when no impression's attribution window is over.

    `window_s`: the attribution window in seconds. A chunk has `max_events` impressions at
    most, unless one transaction alone has more. `is_behind`: that many are expected, since the
    chunk before was cut: they are not read once in vain then. Raises `ClusterChanged`.
    """
    async with (
        database.session(command_timeout=_READ_S) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        return await _read(connection, window_s, max_events, is_behind)


async def note_window(database: Database, window_s: float) -> None:
    """Tell writers of events that chunks are read with this attribution window from now on.

    They set aside no impression that may have been read, and may have another setting.
    """
    async with database.session() as connection:
        await connection.execute(
            "UPDATE training_cursor SET window_s = $1 WHERE window_s IS DISTINCT FROM $1", window_s
        )


async def oldest_transaction_s(database: Database) -> float:
    """Age in seconds of the oldest open transaction that holds the horizon back; 0 if none."""
    async with database.session() as connection:
        age: float = await connection.fetchval(
            """
            SELECT coalesce(extract(epoch FROM clock_timestamp() - min(xact_start)), 0)::float8
            FROM pg_stat_activity WHERE backend_xid IS NOT NULL
            """
        )
    return age


async def advance(connection: AsyncConnection, start: Cursor, end: Cursor) -> None:
    """Move the cursor from `start` to `end` inside the caller's transaction.

    Raises `CursorMoved` when it is not at `start` any more, `ClusterChanged` as `read_cursor`.
    """
    row = (await connection.execute(_LOCKED)).one()
    _check_cluster(row.recorded, row.present)
    if Cursor(row.impressions_xid, row.clicks_xid, row.fence) != start:
        raise CursorMoved(
            f"the training cursor is at fence {row.fence}, this chunk was read at {start.fence}:"
            " another process has accounted for it; read the next chunk"
        )
    await connection.execute(
        sa.text(_MOVE), {"impressions": end.impressions, "clicks": end.clicks, "fence": end.fence}
    )


async def skip(database: Database, chunk: Chunk) -> None:
    """Move the cursor past a chunk of which nothing is left. Raises as `advance`."""
    async with database.begin() as connection:
        await advance(connection, chunk.start, chunk.end)


_LOCKED = sa.select(
    training_cursor.c.impressions_xid,
    training_cursor.c.clicks_xid,
    training_cursor.c.fence,
    training_cursor.c.system_identifier.label("recorded"),
    sa.text("(SELECT system_identifier FROM pg_control_system()) AS present"),
).with_for_update()

_MOVE = """
UPDATE training_cursor SET impressions_xid = :impressions, clicks_xid = :clicks, fence = :fence,
    moved_at = now()
"""


async def rebase(database: Database, actor: str) -> Cursor:
    """After a restore into another cluster: give the events ids that mean something here.

    What had been accounted for stays so; everything else will be read again in the next chunks,
    and counted in the statistics. Events that were stored since the restore are told by their time.
    Rewrites every event, so it takes its time. Nothing changes when the cluster is the same one.
    Raises `DatabaseUnavailable`, with nothing changed, when events are set aside meanwhile.
    """
    async with database.begin() as connection:
        await connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        row = (await connection.execute(_LOCKED)).one()
        if row.recorded != row.present:
            await counting.rebase(connection)
            for statement in _REBASE:
                await connection.execute(sa.text(statement))
            before, after = ({"cluster": str(one)} for one in (row.recorded, row.present))
            await audit.write(connection, actor, "rebase", "training_cursor", before, after)
    return await read_cursor(database)


# What the training of the cluster of before had accounted for. The old cursor knows nothing of
# events that came after it had moved for the last time.
_ACCOUNTED = """
received_at <= moved_at AND (type = 'impression' AND events.xid < impressions_xid
    OR type <> 'impression' AND events.xid < clicks_xid)
"""

# A new cluster has given out more ids than these before anybody can connect to it. What waits
# shares them by its time, as many events each, so that chunks can be cut between them.
_REBASE = (
    f"""
    UPDATE events SET xid = CASE WHEN {_ACCOUNTED} THEN '0'::xid8
        ELSE (1 + coalesce(width_bucket(decided_at, span.times), 0))::text::xid8 END
    FROM training_cursor, (
        SELECT percentile_disc(array(
            SELECT n::float8 / {counting.REBASED_IDS}
            FROM generate_series(1, {counting.REBASED_IDS} - 1) AS n
        )) WITHIN GROUP (ORDER BY decided_at) AS times
        FROM events, training_cursor WHERE NOT ({_ACCOUNTED})
    ) AS span
    """,  # noqa: S608 - a number of ours
    "DELETE FROM horizons",
    """
    UPDATE training_cursor SET impressions_xid = '1', clicks_xid = '1', fence = fence + 1,
        moved_at = now(), system_identifier = (SELECT system_identifier FROM pg_control_system())
    """,
)


async def _read(connection: Any, window_s: float, max_events: int, is_behind: bool) -> Chunk:
    row = await connection.fetchrow(_BOUNDS, window_s)
    start = _cursor(row)
    upper = max(row["horizon"] or 0, start.impressions)
    bounds = (start.impressions, upper)
    shown, upper, is_cut = await _shown(connection, *bounds, max_events, is_behind)
    end = Cursor(upper, max(row["lowest_running"], start.clicks), start.fence + 1)
    clicks = await _clicks(connection, shown.keys.time_us, end.clicks)
    # The server is busy with one while a thread of ours is with the other.
    label, late = await asyncio.gather(
        asyncio.to_thread(clicked, shown.keys, clicks),
        copying.impressions(connection, _LATE, start.clicks, end.clicks, start.impressions),
    )
    return Chunk(
        start,
        end,
        time_ms=_time_ms(shown),
        ad_id=shown.ad_id,
        label=label.astype(np.float32),
        features=shown.features,
        late=_late(late),
        is_cut=is_cut,
    )


async def _shown(
    connection: Any, start: int, upper: int, max_events: int, is_behind: bool
) -> tuple[Impressions, int, bool]:
    """The impressions below `upper`, or if there are too many below a cut; where, and whether so.

    Counting them first would take a third of the time of reading them.
    """
    room = min(_ROOM * (max_events + 1), _MOST_ROOM)
    if not is_behind:
        asked = (_IMPRESSIONS, start, upper, max_events + 1)
        all_of_them = await copying.impressions_unless_more(
            max_events, connection, *asked, room=room
        )
        if all_of_them is not None:
            return all_of_them, upper, False
    cut = await connection.fetchval(_CUT, start, upper, max_events)
    rest = (_IMPRESSIONS, start, cut or upper, None)
    shown = await copying.impressions(connection, *rest, room=room)
    return shown, cut or upper, cut is not None or len(shown.keys) > max_events


async def _clicks(connection: Any, time_us: Int64s, before: int) -> Keys:
    """The clicks on impressions of these ascending times: among others, if these are many."""
    if len(time_us) > _FEW:
        times = [_at(time_us[0]), _at(time_us[-1])]
        data = await copying.content(connection, _CLICKS_BETWEEN, before, *times)
    else:
        data = await copying.content(
            connection, _CLICKS_AT, before, [*map(_at, np.unique(time_us))]
        )
    return binary_rows.clicks(data)


def _late(shown: Impressions) -> Late:
    return Late(_time_ms(shown), shown.ad_id, shown.features)


def _time_ms(shown: Impressions) -> Int64s:
    return shown.keys.time_us // 1000 + EPOCH_2000_MS


def _at(time_us: np.int64) -> datetime:
    return _EPOCH_2000 + timedelta(microseconds=int(time_us))


def _cursor(row: Any) -> Cursor:
    _check_cluster(row["recorded"], row["present"])
    return Cursor(row["impressions_xid"], row["clicks_xid"], row["fence"])


def _check_cluster(recorded: int, present: int) -> None:
    if recorded != present:
        raise ClusterChanged(recorded, present)
