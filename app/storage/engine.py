"""The connection to PostgreSQL: a pool for statements, session connections for the rest.

`COPY`, `LISTEN` and advisory locks need a session of their own: through PgBouncer they need
session pooling.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.storage.line import Line
from app.storage.translation import translated

_T = TypeVar("_T")

CHANNEL = "adscent"
"""The NOTIFY channel; payloads are JSON objects with a `kind`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CONNECT_S = 5.0
_COMMAND_S = 30.0

# A client that vanished without a word is noticed within half a minute, so that the leader lock
# and the locks of its transaction come free.
_SESSION = {
    "application_name": "adscent",
    "timezone": "UTC",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class Database:
    """One PostgreSQL database, given as `postgresql://user:password@host:port/name`.

    `line`: for what workers report and look at; `changing`: for changes of the catalog that are
    waited for. Neither connects before its first statement. `command_timeout`: seconds that one
    statement of the pool may take, None for no limit.
    """

    def __init__(self, url: str, pool: int = 5, command_timeout: float | None = _COMMAND_S) -> None:
        self.url = _plain(url)
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=partial(self.raw, command_timeout),
            pool_size=pool,
            max_overflow=0,
            pool_timeout=_CONNECT_S,
            pool_pre_ping=True,
            hide_parameters=True,  # an error's text goes to the log, and parameters hold secrets
            json_serializer=lambda value: msgspec.json.encode(value).decode(),
            json_deserializer=msgspec.json.decode,
        )
        self.line = Line(self, is_relaxed=True)
        self.changing = Line(self)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back by an exception."""
        with translated():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One read-only transaction in which every statement sees the same state."""
        with translated():
            async with self.engine.connect() as connection:
                await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                async with connection.begin():
                    yield connection

    async def raw(
        self,
        command_timeout: float | None = _COMMAND_S,
        settings: Mapping[str, str] | None = None,
    ) -> asyncpg.Connection:
        """A new session connection of the driver; the caller closes it.

        `command_timeout`: seconds that one statement may take, None for no limit; `settings`:
        further settings of the session.
        """
        with translated():
            return await asyncpg.connect(
                self.url,
                server_settings={**_SESSION, **(settings or {})},
                timeout=_CONNECT_S,
                command_timeout=command_timeout,
            )

    @asynccontextmanager
    async def session(
        self, command_timeout: float | None = _COMMAND_S
    ) -> AsyncIterator[asyncpg.Connection]:
        """`raw` for the length of a block; errors of the driver inside it are translated."""
        with translated():
            connection = await self.raw(command_timeout)
            try:
                yield connection
            finally:
                await farewell(connection)

    async def ping(self) -> None:
        """Raise `DatabaseUnavailable` when the database does not answer."""
        async with self.begin() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        """Close the pool and the lines."""
        await self.line.close()
        await self.changing.close()
        await self.engine.dispose()


def notify(kind: str, **fields: object) -> sa.Select[Any]:
    """The statement that tells every listener of `CHANNEL`, once the transaction commits."""
    payload = msgspec.json.encode({"kind": kind, **fields}).decode()
    return sa.select(sa.func.pg_notify(CHANNEL, payload))


def at(ms: int) -> datetime:
    """The time, `ms` being milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=ms)


def ms_of(time: datetime) -> int:
    """Milliseconds since 1970."""
    if time.tzinfo is None:  # asyncpg gives the first and the last time of all without their UTC
        time = time.replace(tzinfo=UTC)
    return (time - _EPOCH) // timedelta(milliseconds=1)


def maybe(convert: Callable[[Any], _T], value: Any) -> _T | None:
    """`convert(value)`, or None for None."""
    return None if value is None else convert(value)


async def farewell(connection: asyncpg.Connection) -> None:
    """Close a session connection, whatever state it is in."""
    try:
        await connection.close(timeout=_CONNECT_S)
    except Exception:  # the block's own outcome counts, not that of the farewell
        connection.terminate()


def _plain(url: str) -> str:
    for prefix in ("postgresql+asyncpg://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql://" + url.removeprefix(prefix)
    return url
