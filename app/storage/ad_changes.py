"""Changes of ads' states and bids, one or thousands, in one short transaction.

Four ways to the database and back, whatever the number: everybody who pauses an ad waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import msgspec

from app.storage.catalog_rows import ad_of, decoded, readable
from app.storage.engine import CHANNEL, Database
from app.storage.errors import Conflict, NotFound, StorageError
from models.types import Ad, State

_BUMP = f"""
WITH bumped AS (UPDATE catalog_version SET version = version + 1 RETURNING version)
SELECT pg_notify('{CHANNEL}', json_build_object('kind', 'catalog', 'version', version)::text)
FROM bumped
"""  # noqa: S608 - the name of our channel
_LOCK = """
SELECT ads.*, campaigns.advertiser_id, (SELECT version FROM catalog_version) AS new_version
FROM ads JOIN campaigns ON campaigns.id = ads.campaign_id
WHERE ads.id = ANY($1) ORDER BY ads.id FOR UPDATE OF ads
"""
_CHANGE = """
WITH given AS (
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[])
        AS given (id, state, bid_micros, before, after)
), changed AS (
    UPDATE ads SET state = given.state, bid_micros = given.bid_micros, version = $6
    FROM given WHERE ads.id = given.id RETURNING ads.id
)
INSERT INTO audit (actor, action, subject, before, after)
SELECT $7, 'patch', 'ad:' || given.id, given.before::jsonb, given.after::jsonb
FROM given JOIN changed USING (id)
"""


@dataclass(frozen=True, slots=True)
class AdChange:
    """What is to become of one ad; None leaves it as it is."""

    ad_id: int
    state: State | None = None
    bid_micros: int | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """The version that holds the changes, None where there were none; the changed ads by id; and
    why some were not, by position in what was asked."""

    version: int | None
    ads: Sequence[Ad]
    refused: Mapping[int, StorageError]


class _NothingToDo(Exception):
    """Takes the transaction back: no version is to be made without a change."""


async def change_ads(database: Database, changes: Sequence[AdChange], actor: str) -> Changed:
    """Make all changes that can be made, as one version of the catalog.

    Refused, each by itself: an ad that there is not (`NotFound`), one that is retired, and one
    that is named before in the same list (`Conflict`). Raises `DatabaseUnavailable`.
    """
    refused: dict[int, StorageError] = {}
    try:
        async with database.changing.begin(_BUMP) as connection:
            rows = await connection.fetch(_LOCK, sorted({change.ad_id for change in changes}))
            known = {row["id"]: row for row in rows}
            made = _made(changes, known, refused)
            if not made:
                raise _NothingToDo
            version: int = rows[0]["new_version"]
            await connection.execute(_CHANGE, *_columns(made, known), version, actor)
    except _NothingToDo:
        return Changed(None, [], refused)
    return Changed(version, [replace(ad, version=version) for ad in made.values()], refused)


def _made(
    changes: Sequence[AdChange],
    known: Mapping[int, asyncpg.Record],
    refused: dict[int, StorageError],
) -> dict[int, Ad]:
    """The changed ads by id; the others are noted among the refused."""
    made: dict[int, Ad] = {}
    for index, change in enumerate(changes):
        row = known.get(change.ad_id)
        if row is None:
            refused[index] = NotFound("ad", change.ad_id)
        elif change.ad_id in made:
            remedy = "Give each ad once."
            refused[index] = Conflict("id", change.ad_id, "the list names it already", remedy)
        else:
            fault = _retired(row, change)
            if fault is None:
                made[change.ad_id] = _after(ad_of(decoded(row)), change)
            else:
                refused[index] = fault
    return made


def _after(ad: Ad, change: AdChange) -> Ad:
    return replace(
        ad,
        state=change.state or ad.state,
        bid_micros=ad.bid_micros if change.bid_micros is None else change.bid_micros,
    )


def _retired(row: asyncpg.Record, change: AdChange) -> Conflict | None:
    """Nothing of a retired ad changes any more; a change that changes nothing may be repeated."""
    if row["state"] != "retired":
        return None
    wanted = {"state": change.state, "bid_micros": change.bid_micros}
    for column, value in wanted.items():
        if value is not None and value != row[column]:
            limit = f"ad {row['id']} is retired, which is final"
            return Conflict(column, value, limit, "Create another ad under a new id.")
    return None


def _columns(made: Mapping[int, Ad], known: Mapping[int, asyncpg.Record]) -> list[list[Any]]:
    """What the statement takes, in columns; of many ads the audit keeps only what may change."""
    columns: list[list[Any]] = [[], [], [], [], []]
    for ad in made.values():
        after = {"state": ad.state, "bid_micros": ad.bid_micros}
        before = _whole(known[ad.id])
        if len(made) > 1:
            before = {name: before[name] for name in after}
        texts = [msgspec.json.encode(one).decode() for one in (before, {**before, **after})]
        for column, value in zip(columns, (ad.id, *after.values(), *texts), strict=True):
            column.append(value)
    return columns


def _whole(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `ads` as the audit keeps it."""
    fields = {
        key: value
        for key, value in vars(decoded(row)).items()
        if key not in ("advertiser_id", "new_version")
    }
    return readable(fields)
