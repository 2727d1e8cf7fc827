"""Times between milliseconds since 1970, which the program keeps, and the UTC of its JSON."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EARLIEST_MS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
LATEST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
"""The first and the last time that `moment` and the database can tell, in UTC."""


def milliseconds(given: datetime | None) -> int | None:
    """Milliseconds since 1970, rounded down; None stays None."""
    return None if given is None else (given - _EPOCH) // timedelta(milliseconds=1)


def moment(given_ms: int) -> datetime:
    """The time in UTC."""
    return _EPOCH + timedelta(milliseconds=given_ms)


def moment_or_none(given_ms: int | None) -> datetime | None:
    """The time in UTC; None stays None."""
    return None if given_ms is None else moment(given_ms)
