"""`adscent keys`: make, list, rotate, limit and revoke API keys."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

from app.commands.errors import DurationInvalid
from app.commands.session import with_database
from app.settings import Settings
from app.storage import keys
from app.storage.keys import ApiKey, Scope

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def create(
    settings: Settings,
    name: str,
    scopes: Sequence[str],
    lives: str | None = None,
    requests_per_s: float | None = None,
) -> tuple[UUID, str]:
    """Make a key; returns its id and its secret, which is stored nowhere.

    `lives`: a duration such as "90d", None for ever. Raises `DurationInvalid`, `ConstraintBroken`.
    """
    now_ms, known = _now_ms(), cast(Sequence[Scope], scopes)
    expires_ms = None if lives is None else now_ms + milliseconds(lives)
    return with_database(
        settings,
        lambda database: keys.create_api_key(
            *(database, name, known, now_ms),
            expires_ms=expires_ms,
            requests_per_s=requests_per_s,
        ),
    )


def rotate(settings: Settings, key_id: UUID, grace: str) -> tuple[UUID, str]:
    """Make the key that follows this one, which ends after `grace` ("0s" … "365d").

    Raises `DurationInvalid`, `NotFound`, and `Conflict` for a key that has ended.
    """
    now_ms, grace_ms = _now_ms(), milliseconds(grace)
    return with_database(
        settings, lambda database: keys.rotate_api_key(database, key_id, now_ms, grace_ms)
    )


def limit(settings: Settings, key_id: UUID, requests_per_s: float | None) -> ApiKey:
    """Set a key's rate, None for the deployment's. Raises `NotFound`, `ConstraintBroken`."""
    return with_database(
        settings, lambda database: keys.limit_api_key(database, key_id, requests_per_s)
    )


def listed(settings: Settings) -> Sequence[ApiKey]:
    """All keys, those that have ended included."""
    return with_database(settings, keys.list_api_keys)


def revoke(settings: Settings, key_id: UUID) -> None:
    """Revoke a key; workers stop taking it within seconds. Raises `NotFound`."""
    now_ms = _now_ms()
    with_database(settings, lambda database: keys.revoke_api_key(database, key_id, now_ms))


def rotate_token(settings: Settings) -> int:
    """Add the key that will seal tokens in a minute; returns its id. Raises `Conflict`."""
    return with_database(settings, keys.rotate_token_key)


def state(key: ApiKey) -> str:
    """ "active", or "revoked" or "expired" and since when."""
    if key.revoked_ms is not None:
        return f"revoked {moment(key.revoked_ms)}"
    if key.expires_ms is not None and key.expires_ms <= _now_ms():
        return f"expired {moment(key.expires_ms)}"
    return "active"


def rate_of(key: ApiKey) -> str:
    """A key's own rate, for people to read."""
    return "default" if key.requests_per_s is None else f"{key.requests_per_s:g}/s"


def milliseconds(duration: str) -> int:
    """The length of "30s", "15m", "12h" or "90d". Raises `DurationInvalid`."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", duration)
    if found is None:
        raise DurationInvalid(duration)
    return int(found[1]) * _UNITS_MS[found[2]]


def moment(milliseconds: int) -> str:
    """A time (ms since 1970) for people to read, in UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
