"""A batch of impressions and its clicks as rows of the events table, put there by binary COPY.

What the ingestion writes, without its HTTP: the same columns, defaults and constraints, many
transactions. Rows are laid out by NumPy, since a million calls of `pack` take longer than the
training that is to be measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import numpy as np
import numpy.typing as npt

from app.storage.engine import Database
from models.types import Batch, Bytes, Int64s

AT_ONCE = 10_000
"""Impressions of one transaction."""

_TIMEOUT_S = 120.0
_EPOCH_2000_MS = 946_684_800_000  # PostgreSQL counts microseconds from the year 2000
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_COLUMNS = (
    *("decided_at", "decision_id", "slot", "type", "ad_id", "snapshot_id"),
    *("catalog_version", "price_micros", "propensity", "placement", "features"),
)


async def store(database: Database, batch: Batch, snapshot_id: UUID, seed: int) -> None:
    """Write every impression of `batch`, a decision of its own each, and a click where it has one.

    The days of its times must have partitions. Raises `DatabaseUnavailable`.
    """
    random = np.random.default_rng(seed)
    async with database.session(command_timeout=_TIMEOUT_S) as connection:
        for start in range(0, len(batch), AT_ONCE):
            part = batch.rows(start, min(start + AT_ONCE, len(batch)))
            for rows in rows_of(part, snapshot_id, random):
                await connection.copy_to_table(
                    "events", source=_stream(rows), columns=_COLUMNS, format="binary"
                )


def rows_of(batch: Batch, snapshot_id: UUID, random: np.random.Generator) -> tuple[bytes, bytes]:
    """The impressions and the clicks of a batch in PostgreSQL's binary COPY format."""
    decisions = np.frombuffer(random.bytes(16 * len(batch)), np.uint8).reshape(-1, 16)
    counts, ids, widths = _packed(batch)
    shown = _heads(batch, decisions, snapshot_id, "impression", counts.shape[1])
    shown["counts"], shown["n_features"] = counts, counts.shape[1] + widths
    clicked = _heads(batch, decisions, snapshot_id, "click", 0)
    clicked["n_features"] = -1  # NULL: a click has those of its impression
    return (
        _HEADER + _joined(shown, ids, widths).tobytes() + _TRAILER,
        _HEADER + clicked[batch.label > 0].tobytes() + _TRAILER,
    )


async def _stream(rows: bytes) -> AsyncIterator[bytes]:
    yield rows


def packed(batch: Batch) -> list[bytes]:
    """What `models.features.pack` makes of each row."""
    counts, ids, widths = _packed(batch)
    ends = np.cumsum(widths).tolist()
    starts = [0, *ends[:-1]]
    heads, tails = [row.tobytes() for row in counts], ids.tobytes()
    return [heads[row] + tails[a:b] for row, (a, b) in enumerate(zip(starts, ends, strict=True))]


def _heads(
    batch: Batch, decisions: Bytes, snapshot_id: UUID, kind: str, features: int
) -> npt.NDArray[np.void]:
    """The part of each row that has a fixed width, up to the features' counts."""
    values: dict[str, tuple[str, object]] = {
        "decided": (">i8", (batch.time_ms - _EPOCH_2000_MS) * 1000),
        "decision": ("V16", np.ascontiguousarray(decisions).view("V16")[:, 0]),
        "slot": (">i2", 0),
        "type": (f"S{len(kind)}", kind.encode()),
        "ad": (">i8", batch.ad_id),
        "snapshot": ("V16", np.void(snapshot_id.bytes)),
        "catalog": (">i8", 1),
        "price": (">i8", 1000),
        "propensity": (">f4", 1.0),
    }
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = [("columns", ">i2")]
    for name, (form, _) in values.items():
        fields += [(f"n_{name}", ">i4"), (name, form)]
    fields += [("n_placement", ">i4"), ("n_features", ">i4"), ("counts", "u1", (features,))]
    rows = np.zeros(len(batch), np.dtype(fields))
    rows["columns"] = len(_COLUMNS)
    for name, (form, content) in values.items():
        rows[f"n_{name}"], rows[name] = np.dtype(form).itemsize, content
    return rows


def _packed(batch: Batch) -> tuple[Bytes, Bytes, Int64s]:
    """What `models.features.pack` makes of each row: its counts; all ids; their bytes by row."""
    sides = (batch.user, batch.ad)
    counts = np.column_stack([np.diff(s.ptr).reshape(len(batch), s.features) for s in sides])
    of_user = counts[:, : batch.user.features].sum(axis=1)
    sizes = np.column_stack((of_user, counts.sum(axis=1) - of_user))
    is_user = np.repeat(np.tile((True, False), len(batch)), sizes.ravel())
    ids = np.empty(len(is_user), "<i8")
    ids[is_user], ids[~is_user] = batch.user.ids, batch.ad.ids
    return counts.astype(np.uint8), ids.view(np.uint8), sizes.sum(axis=1) * 8


def _joined(heads: npt.NDArray[np.void], tails: Bytes, widths: Int64s) -> Bytes:
    """Each head followed by its tail, of which `widths` gives the bytes."""
    size = heads.dtype.itemsize
    starts = np.cumsum(widths + size) - widths - size
    places = (starts[:, None] + np.arange(size)).ravel()
    rows = np.empty(len(heads) * size + len(tails), np.uint8)
    is_tail = np.ones(len(rows), np.bool_)
    is_tail[places] = False
    rows[places], rows[is_tail] = heads.view(np.uint8), tails
    return rows
