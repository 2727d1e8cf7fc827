"""`adscent keys`: make, list and revoke API keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from app.commands.session import with_database
from app.settings import Settings
from app.storage import keys
from app.storage.keys import ApiKey, Scope


def create(settings: Settings, name: str, scopes: Sequence[str]) -> tuple[UUID, str]:
    """Make a key; returns its id and its secret, which is stored nowhere."""
    now_ms, known = time.time_ns() // 1_000_000, cast(Sequence[Scope], scopes)
    return with_database(
        settings, lambda database: keys.create_api_key(database, name, known, now_ms)
    )


def listed(settings: Settings) -> Sequence[ApiKey]:
    """All keys, revoked ones included."""
    return with_database(settings, keys.list_api_keys)


def revoke(settings: Settings, key_id: UUID) -> None:
    """Revoke a key; workers stop taking it within seconds. Raises `NotFound`."""
    now_ms = time.time_ns() // 1_000_000
    with_database(settings, lambda database: keys.revoke_api_key(database, key_id, now_ms))


def rotate_token(settings: Settings) -> int:
    """Add the key that will seal tokens in a minute; returns its id. Raises `Conflict`."""
    return with_database(settings, keys.rotate_token_key)


def state(key: ApiKey) -> str:
    """ "active", or "revoked" and since when."""
    return "active" if key.revoked_ms is None else f"revoked {moment(key.revoked_ms)}"


def moment(milliseconds: int) -> str:
    """A time (ms since 1970) for people to read, in UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
