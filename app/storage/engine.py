"""The connection to PostgreSQL: a pool for statements, session connections for the rest.

`COPY`, `LISTEN` and advisory locks need a session of their own: through PgBouncer they need
session pooling. Whatever the driver raises because the database is away or went away is translated
to `DatabaseUnavailable` here, with the driver's error kept as its cause.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.storage.errors import ConstraintBroken, DatabaseUnavailable, StorageError

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

_AWAY = (
    OSError,  # TimeoutError is one of them
    PoolTimeout,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutdown, start-up, cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock: repeating it is the remedy
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that has not been promoted yet
    asyncpg.InternalClientError,  # a COPY was cut off: its connection takes nothing more
)


class Database:
    """One PostgreSQL database, given as `postgresql://user:password@host:port/name`."""

    def __init__(self, url: str, pool: int = 5) -> None:
        self.url = _plain(url)
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self.raw,
            pool_size=pool,
            max_overflow=0,
            pool_timeout=_CONNECT_S,
            pool_pre_ping=True,
            json_serializer=lambda value: msgspec.json.encode(value).decode(),
            json_deserializer=msgspec.json.decode,
        )

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

    async def raw(self, command_timeout: float | None = _COMMAND_S) -> asyncpg.Connection:
        """A new session connection of the driver; the caller closes it.

        `command_timeout`: seconds that one statement may take, None for no limit.
        """
        with translated():
            return await asyncpg.connect(
                self.url,
                server_settings=_SESSION,
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
        """Close the pool."""
        await self.engine.dispose()


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into those of this package; errors of ours pass."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        known = translate(error)
        if known is None:
            raise
        raise known from error


def translate(error: BaseException) -> StorageError | None:
    """The error of this package for one of SQLAlchemy, asyncpg or the socket; None if unknown."""
    for cause in _chain(error):
        if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
            return _constraint(cause)
        if isinstance(cause, asyncpg.DataError):
            return ConstraintBroken("value", str(cause), "PostgreSQL cannot store it", "Mend it.")
        if isinstance(cause, _AWAY) or _says_closed(cause):
            text = f"the database does not answer ({type(cause).__name__}: {cause}); repeat later"
            return DatabaseUnavailable(text)
    return None


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


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what SQLAlchemy wrapped, and their causes."""
    following: BaseException | None = error
    while following is not None:
        yield following
        original = following.orig if isinstance(following, DBAPIError) else None
        following = original or following.__cause__


def _says_closed(error: BaseException) -> bool:
    """asyncpg has no class of its own for the use of a connection that broke earlier."""
    is_interface = isinstance(error, asyncpg.InterfaceError | InterfaceError)
    return is_interface and "clos" in str(error).lower()


def _constraint(error: asyncpg.IntegrityConstraintViolationError) -> ConstraintBroken:
    """Constraints are named `<kind>_<table>_<column>[_<rule>]`, so the name tells the field."""
    name = error.constraint_name or "constraint"
    field = name.removeprefix(f"{name.split('_')[0]}_{error.table_name}_")
    for rule in _RULES:
        field = field.removesuffix(rule)
    missing = _MISSING.search(error.detail or "")
    if isinstance(error, asyncpg.ForeignKeyViolationError) and missing is not None:
        given, kind = missing[1], missing[2].removesuffix("s")
        value = int(given) if given.isdecimal() else given
        return ConstraintBroken(
            field, value, f"there is no such {kind}", f"Create the {kind} first."
        )
    # The detail of a check shows the whole row, which is not the caller's to see.
    remedy = "Give a value that the constraint allows."
    return ConstraintBroken(field, None, f"constraint {name}", remedy)


_MISSING = re.compile(r'=\((.*)\) is not present in table "(\w+)"')


_RULES = ("_known", "_range", "_positive", "_not_negative", "_ordered", "_length")
