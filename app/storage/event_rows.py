"""Events as rows of PostgreSQL's binary COPY, laid out for the staging table of the writer.

A row is an int16 count of fields and, for each, an int32 length (−1 for NULL) and the bytes, all
big-endian. Fields of a fixed length come first, so one call packs them together.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

from app.storage.binary_rows import EPOCH_2000_MS
from app.storage.errors import ConstraintBroken
from models.types import Event

COLUMNS: Mapping[str, str] = {
    "ordinal": "integer",
    "decided_at": "timestamptz",
    "decision_id": "uuid",
    "slot": "smallint",
    "ad_id": "bigint",
    "snapshot_id": "uuid",
    "catalog_version": "bigint",
    "price_micros": "bigint",
    "propensity": "real",
    "value_micros": "bigint",
    "type": "text",
    "placement": "text",
    "features": "bytea",
    "quarantined_by": "text",
}
"""The columns of a row in their order, with their types."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_FIXED = struct.Struct(">hii iq i16s ih iq i16s iq iq if".replace(" ", ""))
_KEY = slice(10, 48)
_VALUE = struct.Struct(">iq")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


def row_of(ordinal: int, event: Event) -> tuple[bytes, bytes]:
    """The key of an event, by which two of one batch are told apart, and its row.

    Raises `ConstraintBroken` for a number that its column cannot hold.
    """
    try:
        fixed = _fixed(ordinal, event)
    except struct.error as error:
        limit, remedy = f"a column cannot hold it: {error}", "Send the token as it was given."
        raise ConstraintBroken("event", None, limit, remedy) from error
    kind = _text(event.type)
    value, features = event.value_micros, event.features
    parts = (
        fixed,
        _NULL if value is None else _VALUE.pack(8, value),
        kind,
        _text(event.placement),
        *((_LENGTH.pack(len(features)), features) if event.type == "impression" else (_NULL,)),
        _NULL if event.quarantined_by is None else _text(event.quarantined_by),
    )
    return fixed[_KEY] + kind, b"".join(parts)


def _fixed(ordinal: int, event: Event) -> bytes:
    return _FIXED.pack(
        *(len(COLUMNS), 4, ordinal),
        *(8, (event.decided_ms - EPOCH_2000_MS) * 1000),
        *(16, event.decision_id.bytes),
        *(2, event.slot),
        *(8, event.ad_id),
        *(16, event.snapshot_id.bytes),
        *(8, event.catalog_version),
        *(8, event.price_micros),
        *(4, event.propensity),
    )


@lru_cache(maxsize=1024)
def _text(text: str) -> bytes:
    content = text.encode()
    return _LENGTH.pack(len(content)) + content
