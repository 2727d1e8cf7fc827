"""A line: one quick connection whose transactions are all or nothing, whatever breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from app.storage.engine import Database
from app.storage.errors import ConstraintBroken, DatabaseUnavailable

pytestmark = pytest.mark.anyio
_BUMP = "UPDATE catalog_version SET version = version + 1"
_VERSION = "SELECT version FROM catalog_version"


async def _version(database: Database) -> int:
    [row] = await database.line.fetch(_VERSION)
    version: int = row["version"]
    return version


async def test_ended_session_is_replaced(database: Database) -> None:
    """After the database ended its session a line serves again, the second time at the latest."""
    [row] = await database.line.fetch("SELECT pg_backend_pid() AS pid")
    async with database.session() as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", row["pid"])
    with suppress(DatabaseUnavailable):
        await database.line.fetch(_VERSION)
    assert await _version(database) == 0


async def test_exception_takes_the_transaction_back(database: Database) -> None:
    """Nothing of a block that raises is kept, and the line goes on."""
    with pytest.raises(KeyError):
        async with database.changing.begin(_BUMP):
            raise KeyError
    assert await _version(database) == 0
    async with database.changing.begin(_BUMP):
        pass
    assert await _version(database) == 1


async def test_refused_statement_is_translated(database: Database) -> None:
    """A broken constraint is this package's error; what ran before it is taken back."""
    with pytest.raises(ConstraintBroken):
        async with database.changing.begin(_BUMP) as connection:
            await connection.execute("INSERT INTO campaigns VALUES (1, 99, 'active', '', 1)")
    assert await _version(database) == 0


async def test_cancelled_block_commits_nothing(database: Database) -> None:
    """A call that is given up in the middle leaves no change and no lock behind."""
    begun = asyncio.Event()

    async def hold() -> None:
        async with database.changing.begin(_BUMP):
            begun.set()
            await asyncio.sleep(60)

    holding = asyncio.create_task(hold())
    await begun.wait()
    holding.cancel()
    with suppress(asyncio.CancelledError):
        await holding
    async with asyncio.timeout(5), database.changing.begin(_BUMP):
        pass
    assert await _version(database) == 1


async def test_statements_of_a_line_take_turns(database: Database) -> None:
    """Many callers at once each get their own answer."""
    asked = [database.line.fetch("SELECT $1::int AS given", number) for number in range(50)]
    found = [rows[0]["given"] for rows in await asyncio.gather(*asked)]
    assert found == list(range(50))
