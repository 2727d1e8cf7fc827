"""Where the database is: `DATABASE_URL`, or the embedded one of this home."""

from __future__ import annotations

from app.settings import Settings
from app.storage.embedded import EmbeddedPostgres


class DatabaseMissing(Exception):
    """No database is configured and none runs here."""


def database_url(settings: Settings) -> str:
    """The URL of the database. Raises `DatabaseMissing` with the remedy."""
    url = settings.database_url or EmbeddedPostgres.url_of(settings.home)
    if url is None:
        raise DatabaseMissing(
            f"no database: DATABASE_URL is not set and none runs in {settings.home}."
            " Start one with `adscent db` and wait until it says that it is ready, or set"
            " DATABASE_URL"
        )
    return url
