"""From the errors of the driver to those of this package.

Whatever the driver raises because the database is away or went away becomes `DatabaseUnavailable`,
with the driver's error kept as its cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.storage.errors import ConstraintBroken, DatabaseUnavailable, StorageError

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
