"""Advertisers, campaigns and ads: every change has a version, an audit row and a notification.

One transaction a change. It bumps the single row of `catalog_version` first: the lock on that row
puts changes in the order of their versions, so whoever has seen version n has seen all before it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import audit
from app.storage.ad_changes import AdChange, Changed, change_ads
from app.storage.catalog_rows import (
    ADS,
    NAMES,
    ad_of,
    ad_row,
    advertiser_of,
    advertiser_row,
    campaign_of,
    campaign_row,
    readable,
)
from app.storage.catalog_versions import bump, newest
from app.storage.engine import Database
from app.storage.errors import Conflict, NotFound
from app.storage.placements import placements_since
from app.storage.recent_changes import recent_changes
from app.storage.tables import ads, advertisers, campaigns
from models.types import Ad, Advertiser, Campaign, CatalogChanges, State

_ROWS = 1000
"""Rows of one statement of an import: each value is a parameter, of which 32,767 are allowed."""
_ROWS_AT_ONCE = 100
"""Rows of changes that are read at once: 3 ms of an event loop."""

_Made = TypeVar("_Made")


class Catalog:
    """The catalog. Changes raise `NotFound`, `Conflict`, `ConstraintBroken` and
    `DatabaseUnavailable`; reads `NotFound` and `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_ad(self, ad: Ad, actor: str) -> Ad:
        """Create or replace an ad; its advertiser is that of its campaign, whatever `ad` says."""
        await self._put(ads, ad_row(ad), actor)
        return await self.get_ad(ad.id)

    async def put_campaign(self, campaign: Campaign, actor: str) -> Campaign:
        """Create or replace a campaign. Another advertiser makes its ads' features new."""
        await self._put(campaigns, campaign_row(campaign), actor)
        return await self.get_campaign(campaign.id)

    async def put_advertiser(self, advertiser: Advertiser, actor: str) -> Advertiser:
        """Create or replace an advertiser."""
        await self._put(advertisers, advertiser_row(advertiser), actor)
        return await self.get_advertiser(advertiser.id)

    async def patch_ad(
        self, ad_id: int, actor: str, state: State | None = None, bid_micros: int | None = None
    ) -> Ad:
        """Change the state or the bid of an ad. Raises `Conflict` for a retired one."""
        change = AdChange(ad_id, state, bid_micros)
        done = await change_ads(self._database, [change], actor)
        for fault in done.refused.values():
            raise fault
        return done.ads[0]

    async def patch_ads(self, changes: Sequence[AdChange], actor: str) -> Changed:
        """Change states and bids of many ads as one version; what cannot be is refused by item."""
        return await change_ads(self._database, changes, actor)

    async def patch_campaign(
        self, campaign_id: int, actor: str, state: State | None = None, name: str | None = None
    ) -> Campaign:
        """Change the state or the name of a campaign."""
        await self._patch(campaigns, campaign_id, actor, {"state": state, "name": name})
        return await self.get_campaign(campaign_id)

    async def patch_advertiser(
        self, advertiser_id: int, actor: str, state: State | None = None, name: str | None = None
    ) -> Advertiser:
        """Change the state or the name of an advertiser."""
        await self._patch(advertisers, advertiser_id, actor, {"state": state, "name": name})
        return await self.get_advertiser(advertiser_id)

    async def get_ad(self, ad_id: int) -> Ad:
        """The ad with this id."""
        return ad_of(await self._one(ADS, ads, ad_id))

    async def get_campaign(self, campaign_id: int) -> Campaign:
        """The campaign with this id."""
        return campaign_of(await self._one(campaigns.select(), campaigns, campaign_id))

    async def get_advertiser(self, advertiser_id: int) -> Advertiser:
        """The advertiser with this id."""
        return advertiser_of(await self._one(advertisers.select(), advertisers, advertiser_id))

    async def list_ads(
        self,
        limit: int,
        after: int | None = None,
        state: State | None = None,
        campaign_id: int | None = None,
        advertiser_id: int | None = None,
    ) -> list[Ad]:
        """At most `limit` ads in the order of their ids, those above `after`."""
        wanted = {
            ads.c.state: state,
            ads.c.campaign_id: campaign_id,
            campaigns.c.advertiser_id: advertiser_id,
        }
        return [ad_of(row) for row in await self._page(ADS, ads, limit, after, wanted)]

    async def list_campaigns(
        self,
        limit: int,
        after: int | None = None,
        state: State | None = None,
        advertiser_id: int | None = None,
    ) -> list[Campaign]:
        """At most `limit` campaigns in the order of their ids, those above `after`."""
        wanted = {campaigns.c.state: state, campaigns.c.advertiser_id: advertiser_id}
        rows = await self._page(campaigns.select(), campaigns, limit, after, wanted)
        return [campaign_of(row) for row in rows]

    async def list_advertisers(
        self, limit: int, after: int | None = None, state: State | None = None
    ) -> list[Advertiser]:
        """At most `limit` advertisers in the order of their ids, those above `after`."""
        wanted = {advertisers.c.state: state}
        rows = await self._page(advertisers.select(), advertisers, limit, after, wanted)
        return [advertiser_of(row) for row in rows]

    async def import_catalog(
        self,
        new_advertisers: Iterable[Advertiser],
        new_campaigns: Iterable[Campaign],
        new_ads: Iterable[Ad],
        actor: str,
    ) -> int:
        """Create or replace all of these in one transaction and return its version.

        All or nothing: an error leaves the catalog as it was. Each one that is new or differs has
        an audit row, and one more counts all of them.
        """
        given: list[tuple[sa.Table, list[dict[str, Any]]]] = [
            (advertisers, [advertiser_row(one) for one in new_advertisers]),
            (campaigns, [campaign_row(one) for one in new_campaigns]),
            (ads, [ad_row(one) for one in new_ads]),
        ]
        async with self._database.begin() as connection:
            version = await bump(connection)
            for table, rows in given:
                for start in range(0, len(rows), _ROWS):
                    part = rows[start : start + _ROWS]
                    changes = await _changes(connection, table, part)
                    await _upsert(connection, table, part, version)
                    await audit.write_all(connection, actor, "import", changes)
            counts = {table.name: len(rows) for table, rows in given}
            await audit.write(connection, actor, "import", "catalog", after=counts)
        return version

    async def version(self) -> int:
        """The version of the newest change."""
        async with self._database.begin() as connection:
            return await newest(connection)

    async def changes_since(self, version: int) -> CatalogChanges:
        """Everything that changed after `version`, all of one moment; 0 gives the whole catalog."""
        recent = await recent_changes(self._database, version) if version else None
        if recent is not None:
            return recent
        async with self._database.read() as connection:
            last = await newest(connection)
            if last <= version:
                return CatalogChanges(last)
            return CatalogChanges(
                last,
                await _since(connection, advertisers.select(), advertisers, version, advertiser_of),
                await _since(connection, campaigns.select(), campaigns, version, campaign_of),
                await _since(connection, ADS, ads, version, ad_of),
                await placements_since(connection, version),
            )

    async def count_since(self, version: int) -> int:
        """How many ads changed after `version`."""
        query = sa.select(sa.func.count()).select_from(ads).where(ads.c.version > version)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def _put(self, table: sa.Table, row: dict[str, Any], actor: str) -> None:
        async with self._database.begin() as connection:
            version = await bump(connection)
            before = await _locked(connection, table, row["id"])
            await _upsert(connection, table, [row], version)
            subject = f"{NAMES[table]}:{row['id']}"
            await audit.write(connection, actor, "put", subject, before, readable(row))

    async def _patch(
        self, table: sa.Table, row_id: int, actor: str, given: Mapping[str, Any]
    ) -> None:
        changes = {column: value for column, value in given.items() if value is not None}
        async with self._database.begin() as connection:
            version = await bump(connection)
            before = await _locked(connection, table, row_id)
            if before is None:
                raise NotFound(NAMES[table], row_id)
            _check_patch(table, before, changes)
            update = table.update().where(table.c.id == row_id)
            await connection.execute(update.values(version=version, **changes))
            subject = f"{NAMES[table]}:{row_id}"
            await audit.write(connection, actor, "patch", subject, before, {**before, **changes})

    async def _one(self, query: sa.Select[Any], table: sa.Table, row_id: int) -> Any:
        async with self._database.begin() as connection:
            row = (await connection.execute(query.where(table.c.id == row_id))).one_or_none()
        if row is None:
            raise NotFound(NAMES[table], row_id)
        return row

    async def _page(
        self,
        query: sa.Select[Any],
        table: sa.Table,
        limit: int,
        after: int | None,
        wanted: Mapping[Any, object],
    ) -> Sequence[Any]:
        query = query.order_by(table.c.id).limit(limit)
        if after is not None:
            query = query.where(table.c.id > after)
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        async with self._database.begin() as connection:
            return list(await connection.execute(query))


async def _since(
    connection: AsyncConnection,
    query: sa.Select[Any],
    table: sa.Table,
    version: int,
    made: Callable[[Any], _Made],
) -> tuple[_Made, ...]:
    """What is made of the rows that changed after `version`.

    They come a few at a time: the event loop that reads many thousands goes on with other work.
    """
    found: list[_Made] = []
    options = {"yield_per": _ROWS_AT_ONCE if version else _ROWS}
    rows = await connection.stream(
        query.where(table.c.version > version), execution_options=options
    )
    with nullcontext() if version else _uncollected():
        async for part in rows.partitions():
            found += map(made, part)
    return tuple(found)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of garbage: a whole catalog is millions of objects and none of them
    is, yet looking through them again and again took 16 of 25 s for 300,000 ads."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


async def _locked(
    connection: AsyncConnection, table: sa.Table, row_id: int
) -> dict[str, Any] | None:
    query = table.select().where(table.c.id == row_id).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else readable(dict(row))


async def _changes(
    connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]]
) -> list[tuple[str, dict[str, Any] | None, dict[str, Any]]]:
    """What (subject, before, after) replacing these rows changes."""
    query = table.select().where(table.c.id.in_([row["id"] for row in rows]))
    found = (await connection.execute(query.with_for_update())).mappings()
    before = {row["id"]: readable(dict(row)) for row in found}
    after = [readable(row) for row in rows]
    return [
        (f"{NAMES[table]}:{row['id']}", before.get(row["id"]), row)
        for row in after
        if row["id"] not in before or {**before[row["id"]], **row} != before[row["id"]]
    ]


async def _upsert(
    connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]], version: int
) -> None:
    """Create or replace rows of distinct ids; retired ones stay retired."""
    await _check_all_final(connection, table, rows)
    if table is campaigns:
        await _renew_ads(connection, rows, version)
    stamp = {"version": version} | ({"features_version": version} if table is ads else {})
    statement = insert(table).values([row | stamp for row in rows])
    new: dict[str, Any] = {
        column: statement.excluded[column] for column in (*rows[0], *stamp) if column != "id"
    }
    if table is ads:
        new["features_version"] = _features_version(statement.excluded)
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=new))


def _features_version(new: Any) -> sa.ColumnElement[int]:
    """The new version when what an index holds of the ad has changed, else the one it had."""
    held = (ads.c.features, ads.c.campaign_id, ads.c.bid_type)
    changed = sa.or_(*(column.is_distinct_from(new[column.name]) for column in held))
    return sa.case((changed, new.features_version), else_=ads.c.features_version)


async def _renew_ads(connection: AsyncConnection, rows: list[dict[str, Any]], version: int) -> None:
    """The advertiser is a feature of the ad: when a campaign moves, its ads are new as well."""
    given = {row["id"]: row["advertiser_id"] for row in rows}
    query = sa.select(campaigns.c.id, campaigns.c.advertiser_id).where(campaigns.c.id.in_(given))
    found = (await connection.execute(query)).all()
    moved = [row.id for row in found if row.advertiser_id != given[row.id]]
    if moved:
        update = ads.update().where(ads.c.campaign_id.in_(moved))
        await connection.execute(update.values(version=version, features_version=version))


async def _check_all_final(
    connection: AsyncConnection, table: sa.Table, rows: list[dict[str, Any]]
) -> None:
    given = {row["id"]: row for row in rows}
    if len(given) < len(rows):
        twice = next(row["id"] for row in rows if row is not given[row["id"]])
        raise Conflict(f"{NAMES[table]}.id", twice, "it is given twice", "Give each id once.")
    query = sa.select(table.c.id, table.c.state).where(table.c.id.in_(given))
    for row in (await connection.execute(query.where(table.c.state == "retired"))).mappings():
        _check_final(table, row, given[row["id"]]["state"])


def _check_final(table: sa.Table, before: Mapping[Any, Any], state: str) -> None:
    if before["state"] == "retired" and state != "retired":
        raise _retired(table, before, "state", state)


def _check_patch(table: sa.Table, before: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Nothing of a retired row changes any more; a patch that changes nothing may be repeated."""
    _check_final(table, before, changes.get("state", before["state"]))
    for column, value in changes.items():
        if before["state"] == "retired" and value != before[column]:
            raise _retired(table, before, column, value)


def _retired(table: sa.Table, before: Mapping[Any, Any], column: str, value: object) -> Conflict:
    kind = NAMES[table]
    limit = f"{kind} {before['id']} is retired, which is final"
    return Conflict(column, value, limit, f"Create another {kind} under a new id.")
