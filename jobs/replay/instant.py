"""Times as a report writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def written(time_ms: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
