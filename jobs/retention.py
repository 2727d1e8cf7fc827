"""Housekeeping: horizons for the training cursor, partitions made and dropped, old snapshots."""

from __future__ import annotations

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from app.ids import made_ms
from app.storage import chunks, keys, partitions, snapshots
from jobs.context import Context

_ORPHAN_AGE_S = 3600.0
"""A folder younger than this may belong to a run that is about to record it."""

_KEY_MARGIN_S = 3600.0
"""A replaced key seals a little longer, and clocks differ."""


async def record_horizon(context: Context) -> None:
    """Note which transactions have ended by now: what the next chunks are bounded by."""
    await chunks.record_horizon(context.database, _horizons_kept_s(context))
    age_s = await chunks.oldest_transaction_s(context.database)
    context.measures.oldest_transaction.set(age_s)


async def keep_partitions(context: Context) -> None:
    """Make the partitions of the days to come; drop those past retention, never untrained ones."""
    now_ms = context.clock()
    await partitions.ensure_partitions(context.database, now_ms)
    oldest = partitions.day_of(now_ms) - timedelta(days=context.settings.event_retention_days)
    dropped = await partitions.drop_partitions(context.database, oldest)
    if dropped:
        context.log.info("partitions_dropped", days=[day.isoformat() for day in dropped])


async def keep_token_keys(context: Context) -> None:
    """Drop the replaced keys of which every token is too old for any event, and its link too."""
    settings = context.settings
    longest_s = max(
        *(settings.token_lifetime_s, settings.conversion_window_s),
        settings.event_retention_days * 86_400.0,
    )
    before_ms = context.clock() - int(1000 * (longest_s + _KEY_MARGIN_S))
    dropped = await keys.drop_token_keys(context.database, before_ms)
    if dropped:
        context.log.info("token_keys_dropped", ids=dropped)


async def keep_snapshots(context: Context) -> None:
    """Delete the folders of expired snapshots, and those that no row names, here and in the store
    that all hosts share."""
    keep = context.settings.snapshots_kept
    expired = await snapshots.expire_snapshots(context.database, keep, context.clock())
    recorded = await snapshots.recorded_ids(context.database)
    doomed = [folder for folder in _folders(context.store) if _id(folder) in set(expired)]
    doomed += [f for f in _folders(context.store) if _is_orphan(f, recorded, context.clock())]
    for folder in doomed:
        await asyncio.to_thread(shutil.rmtree, folder)
    shared = await _delete_shared(context, set(expired), recorded)
    if doomed or shared:
        names = sorted({folder.name for folder in doomed} | {str(one) for one in shared})
        context.log.info("snapshots_deleted", folders=names)


async def _delete_shared(context: Context, expired: set[UUID], recorded: set[UUID]) -> list[UUID]:
    before_ms = context.clock() - int(1000 * _ORPHAN_AGE_S)
    stored = await asyncio.to_thread(context.snapshots.stored)
    doomed = [
        one
        for one in stored
        if one in expired or (one not in recorded and made_ms(one) < before_ms)
    ]
    for snapshot_id in doomed:
        await asyncio.to_thread(context.snapshots.delete, snapshot_id)
    return doomed


def _horizons_kept_s(context: Context) -> float:
    return 2 * context.settings.attribution_window_s + 3600.0


def _folders(store: Path) -> list[Path]:
    return sorted(path for path in store.iterdir() if path.is_dir()) if store.exists() else []


def _id(folder: Path) -> UUID | None:
    try:
        return UUID(folder.stem)
    except ValueError:
        return None


def _is_orphan(folder: Path, recorded: set[UUID], now_ms: int) -> bool:
    snapshot_id = _id(folder)
    if snapshot_id is None:
        return False  # not ours to delete
    is_partial = folder.suffix != ""
    age_s = now_ms / 1000 - folder.stat().st_mtime
    return (is_partial or snapshot_id not in recorded) and age_s > _ORPHAN_AGE_S
