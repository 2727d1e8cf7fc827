"""Identifiers that the server makes."""

from __future__ import annotations

import secrets
from uuid import UUID

_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)


def uuid7(now_ms: int) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of ms since 1970, then 74 random bits."""
    random = secrets.randbits(74)
    high, low = random >> 62, random & ((1 << 62) - 1)
    return UUID(int=(now_ms << 80) | (high << 64) | low | _VERSION_AND_VARIANT)


def made_ms(made: UUID) -> int:
    """When a UUIDv7 was made, in ms since 1970: it begins with that."""
    return made.int >> 80
