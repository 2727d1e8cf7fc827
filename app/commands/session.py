"""A database for the length of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.database_url import database_url
from app.settings import Settings
from app.storage import migrate
from app.storage.engine import Database

_T = TypeVar("_T")


def with_database(settings: Settings, use: Callable[[Database], Awaitable[_T]]) -> _T:
    """Open the database, run `use`, close it.

    Raises `DatabaseMissing`, `DatabaseUnavailable`, and `MigrationsPending` before `use` is called.
    """

    async def run() -> _T:
        url = database_url(settings)
        await migrate.check(url)
        database = Database(url, pool=1)
        try:
            return await use(database)
        finally:
            await database.close()

    return asyncio.run(run())
