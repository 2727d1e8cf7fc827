"""`adscent db`: the embedded PostgreSQL in the foreground, and migrations of any database."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

from app.commands.session import with_database
from app.database_url import database_url
from app.settings import Settings
from app.storage import chunks, migrate
from app.storage.embedded import EmbeddedPostgres

_ACTOR = "cli:db rebase"


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Start the embedded database, migrate it, and keep it until SIGINT or SIGTERM.

    `tell` gets a sentence once it is ready. Raises `EmbeddedError`.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with EmbeddedPostgres(settings.home, prepare=_migrated):
        tell(f"PostgreSQL is ready for `adscent serve` and `adscent jobs` (home {settings.home})")
        ended.wait()


def _migrated(url: str) -> None:
    asyncio.run(migrate.upgrade(url))


def upgrade(settings: Settings) -> None:
    """Migrate the configured database to this version's tables."""
    _migrated(database_url(settings))


def rebase(settings: Settings) -> None:
    """After a restore: let training and statistics go on from the restored events."""
    with_database(settings, lambda database: chunks.rebase(database, _ACTOR))
