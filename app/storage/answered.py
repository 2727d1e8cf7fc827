"""The impressions of a time, with the snapshot that answered and what came of them.

For comparing snapshots, not for learning: an impression that arrives after its time was read is
left out, on both sides alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import numpy as np

from app.storage.engine import Database, at, ms_of
from models.types import Blobs, Float32s, Int64s


@dataclass(frozen=True, slots=True)
class Answered:
    """n impressions decided in [`from_ms`, `to_ms`), none of them quarantined.

    `time_ms`, `ad_id`: int64 [n]; `label`: float32 [n], 1 where clicked; `spend`: int64 [n],
    thousandths of a micro that the advertiser pays; `by`: int64 [n], the place in `snapshot_ids` of
    the snapshot that answered; `features`: n packed blobs.
    """

    from_ms: int
    to_ms: int
    time_ms: Int64s
    ad_id: Int64s
    label: Float32s
    spend: Int64s
    by: Int64s
    snapshot_ids: tuple[UUID, ...]
    features: Blobs

    def __len__(self) -> int:
        return len(self.time_ms)


# Where to stop when there are more than so many.
_END = """
SELECT decided_at FROM events
WHERE type = 'impression' AND quarantined_by IS NULL AND decided_at >= $1 AND decided_at < $2
ORDER BY decided_at OFFSET $3 LIMIT 1
"""

# A price is per click or per thousand impressions, as the ad's bid was when it was decided.
_ROWS = """
SELECT shown.decided_at, shown.ad_id, shown.snapshot_id, shown.price_micros, shown.features,
    click.decision_id IS NOT NULL AS clicked,
    coalesce(
        (SELECT before FROM bid_type_changes
         WHERE bid_type_changes.ad_id = shown.ad_id AND version > shown.catalog_version
         ORDER BY version LIMIT 1),
        ads.bid_type
    ) = 'cpm' AS per_thousand
FROM events AS shown
LEFT JOIN ads ON ads.id = shown.ad_id
LEFT JOIN events AS click ON click.decided_at = shown.decided_at
    AND click.decision_id = shown.decision_id AND click.slot = shown.slot
    AND click.type = 'click' AND click.quarantined_by IS NULL
    AND click.decided_at >= $1 AND click.decided_at < $2
WHERE shown.type = 'impression' AND shown.quarantined_by IS NULL
    AND shown.decided_at >= $1 AND shown.decided_at < $2
"""


async def read(database: Database, from_ms: int, to_ms: int, most: int = 50_000) -> Answered:
    """The impressions decided in that time, or in the beginning of it where there are more.

    One millisecond is always read whole, however much it has.
    """
    async with database.session(command_timeout=600.0) as connection:
        start, end = at(from_ms), at(to_ms)
        cut = await connection.fetchval(_END, start, end, most)
        if cut is not None:
            end = at(max(ms_of(cut), from_ms + 1))
        rows = await connection.fetch(_ROWS, start, end)
    ids = tuple(sorted({row["snapshot_id"] for row in rows}))
    place = {snapshot_id: number for number, snapshot_id in enumerate(ids)}
    return Answered(
        from_ms,
        ms_of(end),
        time_ms=np.array([ms_of(row["decided_at"]) for row in rows], np.int64),
        ad_id=np.array([row["ad_id"] for row in rows], np.int64),
        label=np.array([row["clicked"] for row in rows], np.float32),
        spend=np.array(
            [
                row["price_micros"] * (1 if row["per_thousand"] else 1000 * row["clicked"])
                for row in rows
            ],
            np.int64,
        ),
        by=np.array([place[row["snapshot_id"]] for row in rows], np.int64),
        snapshot_ids=ids,
        features=Blobs.of([row["features"] for row in rows]),
    )
