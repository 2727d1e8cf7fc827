"""Stored events as CSV, streamed by the database itself."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from app.storage.engine import Database

_EVENTS = """
SELECT type, decided_at, decision_id, slot, ad_id, snapshot_id, catalog_version, price_micros,
    propensity, placement, value_micros, encode(features, 'hex') AS features, received_at
FROM events WHERE quarantined_by IS NULL AND decided_at >= $1 AND decided_at < $2
ORDER BY decided_at, decision_id, slot, type
"""


async def copy_out(database: Database, path: Path, since: date, until: date) -> int:
    """Write the events of these UTC days, both included, with a header; how many there were.

    Quarantined ones are left out. Raises `DatabaseUnavailable`.
    """
    start, stop = _midnight(since), _midnight(until + timedelta(days=1))
    async with database.session(command_timeout=None) as connection:
        status: str = await connection.copy_from_query(
            _EVENTS, start, stop, output=path, format="csv", header=True
        )
    return int(status.removeprefix("COPY "))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
