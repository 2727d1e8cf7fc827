"""Bring a database to the schema of this version, from inside any process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.storage.engine import Database
from app.storage.errors import MigrationsPending

_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"
_LOCK = 0x41445343_4D494752  # "ADSCMIGR": several processes may start at once


async def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up to `revision`, in one transaction; processes that start together take turns.

    Raises `DatabaseUnavailable` when the database does not answer.
    """
    await _run(url, lambda config: command.upgrade(config, revision))


async def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision`; `base` removes every table and with it every row."""
    await _run(url, lambda config: command.downgrade(config, revision))


async def check(url: str) -> None:
    """Raise `MigrationsPending` unless the database is at this version's last migration."""
    expected = ScriptDirectory(str(_SCRIPTS)).get_current_head() or ""
    database = Database(url, pool=1)
    try:
        async with database.begin() as connection:
            found = await connection.run_sync(_revision)
    finally:
        await database.close()
    if found != expected:
        raise MigrationsPending(found, expected)


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def _run(url: str, step: Callable[[Config], None]) -> None:
    database = Database(url, pool=1)

    def with_connection(connection: sa.Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
        step(config)

    try:
        async with database.begin() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            await connection.run_sync(with_connection)
    finally:
        await database.close()
