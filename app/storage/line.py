"""One session connection for what must be quick: a statement is one way there and back.

A pool asks a connection whether it is alive before every use and wraps each statement in a
transaction: on a busy worker every one of these ways waits for its turn behind requests. What a
confirmed pause consists of goes over a line instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import asyncpg

from app.storage.translation import translated

_COMMAND_S = 5.0
_SETTINGS = {
    # A plan for any version would read the whole table, where the newest few rows are wanted.
    "plan_cache_mode": "force_custom_plan",
}
_RELAXED = {"synchronous_commit": "off"}


class _Opens(Protocol):
    async def raw(
        self, command_timeout: float | None, settings: Mapping[str, str] | None
    ) -> asyncpg.Connection: ...


class Line:
    """Statements of one worker, one after the other; a connection that broke is opened anew.

    `is_relaxed`: what is written may be lost if the database's machine fails within the next half
    second, and takes no time on the disk. Raises `DatabaseUnavailable`.
    """

    def __init__(self, database: _Opens, *, is_relaxed: bool = False) -> None:
        self._database = database
        self._settings = _SETTINGS | (_RELAXED if is_relaxed else {})
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """The rows of one statement, a transaction of its own."""
        async with self._turn, self._kept() as connection:
            found: list[asyncpg.Record] = await connection.fetch(statement, *values)
            return found

    @asynccontextmanager
    async def begin(self, first: str) -> AsyncIterator[asyncpg.Connection]:
        """One transaction, rolled back by an exception; `first` runs in it, on the same way."""
        async with self._turn, self._kept() as connection:
            await connection.execute(f"BEGIN; {first}")
            try:
                yield connection
            except Exception:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    async def close(self) -> None:
        """Close the connection; the next statement opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # whatever state it is in, it is not needed any more
                await connection.close(timeout=1.0)

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection, given up where the block leaves it in a state that nobody knows."""
        with translated():
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = self._connection = await self._database.raw(_COMMAND_S, self._settings)
            try:
                yield connection
            except BaseException:
                if connection.is_in_transaction() or not await _is_sound(connection):
                    self._connection = None
                    connection.terminate()
                raise


async def _is_sound(connection: asyncpg.Connection) -> bool:
    """Whether a statement that failed has left the connection usable: it was refused, not cut."""
    if connection.is_closed():
        return False
    try:
        await connection.execute("SELECT 1", timeout=1.0)
    except (Exception, asyncio.CancelledError):
        return False
    return True
