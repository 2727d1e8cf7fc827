"""What several tests of the storage begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.storage import partitions
from app.storage.engine import Database
from app.storage.events import EventWriter
from tests.integration.making import now_ms


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[EventWriter]:
    """A writer to a database with the partitions of this week."""
    await partitions.ensure_partitions(database, now_ms())
    found = EventWriter(database)
    yield found
    await found.close()
