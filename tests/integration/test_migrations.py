"""The migrations make the schema that the code expects, and can be taken back."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.storage.engine import Database
from app.storage.migrate import downgrade, upgrade
from app.storage.tables import metadata

pytestmark = pytest.mark.anyio

_SHAPE = (
    """
    SELECT table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public'
    """,
    """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
)


async def _shape(url: str) -> set[tuple[object, ...]]:
    """Every column, constraint and index but Alembic's own table."""
    database = Database(url, pool=1)
    async with database.begin() as connection:
        rows = [row for query in _SHAPE for row in await connection.execute(sa.text(query))]
    await database.close()
    return {tuple(row) for row in rows if row[0] != "alembic_version"}


async def test_up_down_up_gives_the_same_schema(empty_database_url: str) -> None:
    """Going down leaves nothing behind and going up again gives what the first time gave."""
    await upgrade(empty_database_url)
    first = await _shape(empty_database_url)
    await downgrade(empty_database_url, "base")
    assert await _shape(empty_database_url) == set()
    await upgrade(empty_database_url)
    assert await _shape(empty_database_url) == first


async def test_migrated_schema_is_that_of_the_metadata(
    empty_database_url: str, database_url: str
) -> None:
    """Columns, defaults, checks, keys and indexes are the same, names included."""
    database = Database(empty_database_url, pool=1)
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await database.close()
    assert await _shape(empty_database_url) == await _shape(database_url)


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")  # SQLAlchemy has none
async def test_alembic_finds_nothing_to_migrate(database: Database) -> None:
    """Autogenerating a revision on a migrated database gives an empty one."""

    def difference(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.begin() as connection:
        assert await connection.run_sync(difference) == []


async def test_migrating_twice_changes_nothing(database_url: str) -> None:
    """Every process may migrate when it starts."""
    before = await _shape(database_url)
    await upgrade(database_url)
    assert await _shape(database_url) == before


async def test_every_constraint_is_named_by_the_convention(database_url: str) -> None:
    """No constraint carries a name that PostgreSQL made up."""
    constraints = [row for row in await _shape(database_url) if len(row) == 3]
    prefixes = ("pk_", "fk_", "uq_", "ix_", "ck_")
    made_up = [row[1] for row in constraints if not str(row[1]).startswith(prefixes)]
    not_null = [name for name in made_up if str(name).endswith("_not_null")]
    assert made_up == not_null
