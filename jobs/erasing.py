"""Stored events lose the values that were erased."""

from __future__ import annotations

from app.storage import erased_events, erasures
from jobs.context import Context


async def rewrite_events(context: Context) -> None:
    """Take what was erased since the last pass out of all stored events, in one pass.

    First every transaction has to end that may have stored an event without knowing of it. Where
    one takes long (an import), the next tick tries again.
    """
    pending = await erasures.unfinished(context.database)
    if not pending:
        return
    if not await erased_events.settled(context.database):
        context.log.info("erasure_waits_for_a_transaction", erasures=len(pending.missing))
        return
    counts = await erased_events.rewrite(context.database, pending)
    await erasures.finish(context.database, pending, counts)
    context.measures.erased.inc(counts.total())
    # Neither the values nor their hashes: a log is kept elsewhere, and for longer.
    context.log.info("events_erased_from", erasures=len(pending.missing), events=counts.total())
