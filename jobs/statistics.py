"""Statistics: new events counted at every tick, old hours forgotten."""

from __future__ import annotations

from app.storage import counting
from app.storage.partitions import DAY_MS
from jobs.context import Context


async def count(context: Context) -> None:
    """Count what is ready; with much waiting, one transaction after the other."""
    while done := await counting.count(context.database):
        if done.complete_until_ms is not None:
            context.measures.counted_until.set(done.complete_until_ms / 1000)
        if not done.is_cut:
            break


async def forget(context: Context) -> None:
    """Delete the hours that are past the retention of statistics."""
    days = context.clock() // DAY_MS - context.settings.statistics_retention_days
    deleted = await counting.forget(context.database, days * DAY_MS)
    if deleted:
        context.log.info("statistics_forgotten", rows=deleted)
