"""Placements: floors and house ads. Part of the catalog, under the same versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage import audit
from app.storage.catalog_versions import bump
from app.storage.engine import Database
from app.storage.errors import ConstraintBroken, NotFound
from app.storage.tables import ads, placements
from models.types import Placement


async def put_placement(database: Database, placement: Placement, actor: str) -> Placement:
    """Create or replace a placement. Raises `ConstraintBroken` for a house ad there is not."""
    row = {
        "name": placement.name,
        "floor_micros": placement.floor_micros,
        "house_ads": list(placement.house_ads),
    }
    async with database.begin() as connection:
        version = await bump(connection)
        await _check_house_ads(connection, placement.house_ads)
        before = await _locked(connection, placement.name)
        statement = insert(placements).values(row | {"version": version})
        new = {column: statement.excluded[column] for column in (*row, "version")}
        await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=new))
        await audit.write(connection, actor, "put", f"placement:{placement.name}", before, row)
    return Placement(placement.name, placement.floor_micros, placement.house_ads, version)


async def get_placement(database: Database, name: str) -> Placement:
    """The placement of this name. Raises `NotFound`."""
    async with database.begin() as connection:
        query = placements.select().where(placements.c.name == name)
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("placement", name)
    return _placement_of(row)


async def list_placements(database: Database, limit: int, after: str | None) -> list[Placement]:
    """At most `limit` placements in the order of their names, those after `after`."""
    # By bytes, so that the order is the same under every locale of the database.
    name = sa.collate(placements.c.name, "C")
    query = placements.select().order_by(name).limit(limit)
    if after is not None:
        query = query.where(name > after)
    async with database.begin() as connection:
        return [_placement_of(row) for row in await connection.execute(query)]


async def placements_since(connection: AsyncConnection, version: int) -> tuple[Placement, ...]:
    """The placements that changed after `version`."""
    query = placements.select().where(placements.c.version > version)
    return tuple(_placement_of(row) for row in await connection.execute(query))


def _placement_of(row: Any) -> Placement:
    return Placement(row.name, row.floor_micros, tuple(row.house_ads), row.version)


async def _locked(connection: AsyncConnection, name: str) -> dict[str, Any] | None:
    query = placements.select().where(placements.c.name == name).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else dict(row)


async def _check_house_ads(connection: AsyncConnection, house_ads: Sequence[int]) -> None:
    found = await connection.scalars(sa.select(ads.c.id).where(ads.c.id.in_(house_ads)))
    missing = sorted(set(house_ads) - set(found))
    if missing:
        remedy = "Create the ad first, or leave it out."
        raise ConstraintBroken("house_ads", missing[0], "there is no such ad", remedy)
