"""A real PostgreSQL for the tests: one server a session, a migrated database of its own a test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from itertools import count

import asyncpg
import pytest

from app.storage.embedded import EmbeddedPostgres
from app.storage.engine import Database
from app.storage.migrate import upgrade

_TEMPLATE = "adscent_template"
_numbers = count()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests (`pytest.mark.anyio`) run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server without durability, that has a migrated template database."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("home"), durable=False)
    try:
        url = server.start()
        asyncio.run(_make_template(url))
        yield url
    finally:
        server.stop()
        shutil.rmtree(server.folder)


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """The URL of a new database with no table."""
    yield from _new_database(postgres_url, "template1")


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """The URL of a new migrated database."""
    yield from _new_database(postgres_url, _TEMPLATE)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A new migrated database."""
    found = Database(database_url)
    yield found
    await found.close()


async def _make_template(url: str) -> None:
    await _run(url, f"CREATE DATABASE {_TEMPLATE}")
    await upgrade(_named(url, _TEMPLATE))


def _new_database(url: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    asyncio.run(_run(url, f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield _named(url, name)
    asyncio.run(_run(url, f"DROP DATABASE {name} WITH (FORCE)"))


async def _run(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _named(url: str, name: str) -> str:
    return url.rpartition("/")[0] + "/" + name
