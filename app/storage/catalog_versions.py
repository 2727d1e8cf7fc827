"""The version of the catalog: one row, whose lock puts changes in the order of their versions."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.storage.engine import notify
from app.storage.tables import catalog_version


async def bump(connection: AsyncConnection) -> int:
    """The version of the change that this transaction makes; every worker is told at its commit."""
    update = catalog_version.update().values(version=catalog_version.c.version + 1)
    version: int = await connection.scalar(update.returning(catalog_version.c.version))
    await connection.execute(notify("catalog", version=version))
    return version


async def newest(connection: AsyncConnection) -> int:
    """The version of the newest change."""
    version: int = (await connection.execute(sa.select(catalog_version.c.version))).scalar_one()
    return version
