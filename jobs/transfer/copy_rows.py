"""Columns of events as the bytes of PostgreSQL's binary COPY, laid out by NumPy.

Rows of one type and placement have the same layout up to their features, which come last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.storage.binary_rows import EPOCH_2000_MS
from models.types import Bytes, Int64s, Ragged

COLUMNS = (
    *("decided_at", "decision_id", "slot", "ad_id", "snapshot_id", "catalog_version"),
    *("price_micros", "propensity", "type", "placement", "value_micros", "features"),
)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Rows:
    """n events of one type and placement.

    Integers [n] but where said: `decision` and `snapshot`: V16, the ids' bytes; `propensity`:
    float; `has_value`: bool, whether `value_micros` is one. `features`: the packed bytes of all
    rows with the length of each, None for types that have none.
    """

    kind: str
    placement: str
    time_ms: Int64s
    decision: npt.NDArray[np.void]
    slot: Int64s
    ad_id: Int64s
    snapshot: npt.NDArray[np.void]
    catalog_version: Int64s
    price_micros: Int64s
    propensity: npt.NDArray[np.float64]
    value_micros: Int64s
    has_value: bool
    features: tuple[Bytes, Int64s] | None


def copied(rows: Rows) -> bytes:
    """The rows without header and trailer."""
    heads = _heads(rows)
    if rows.features is None:
        heads["n_features"] = -1
        return heads.tobytes()
    content, lengths = rows.features
    heads["n_features"] = lengths
    return _joined(heads, content, lengths).tobytes()


def packed(user: Ragged, ad: Ragged) -> tuple[Bytes, Int64s]:
    """What `models.features.pack` makes of each row, one after another, and their lengths."""
    sides = (user, ad)
    n = (len(user.ptr) - 1) // user.features
    counts = np.column_stack([np.diff(side.ptr).reshape(n, side.features) for side in sides])
    of_user = counts[:, : user.features].sum(axis=1)
    sizes = np.column_stack((of_user, counts.sum(axis=1) - of_user))
    is_user = np.repeat(np.tile((True, False), n), sizes.ravel())
    ids = np.empty(len(is_user), "<i8")
    ids[is_user], ids[~is_user] = user.ids, ad.ids
    widths = sizes.sum(axis=1) * 8
    heads = np.ascontiguousarray(counts.astype(np.uint8))
    joined = _joined(heads.view(f"V{heads.shape[1]}")[:, 0], ids.view(np.uint8), widths)
    return joined, widths + heads.shape[1]


def _heads(rows: Rows) -> npt.NDArray[np.void]:
    """The part of each row that has a fixed width, up to the length of the features."""
    kind, placement = rows.kind.encode(), rows.placement.encode()
    values: dict[str, tuple[str, Any]] = {
        "decided_at": (">i8", (rows.time_ms - EPOCH_2000_MS) * 1000),
        "decision_id": ("V16", rows.decision),
        "slot": (">i2", rows.slot),
        "ad_id": (">i8", rows.ad_id),
        "snapshot_id": ("V16", rows.snapshot),
        "catalog_version": (">i8", rows.catalog_version),
        "price_micros": (">i8", rows.price_micros),
        "propensity": (">f4", rows.propensity),
        "type": (f"V{len(kind)}", np.void(kind)),
    }
    # A field of no bytes is no field of NumPy's: its length alone is written.
    values |= {"placement": (f"V{len(placement)}", np.void(placement))} if placement else {}
    missing: list[tuple[str, str]] = [] if placement else [("n_placement", ">i4")]
    value = {"value_micros": (">i8", rows.value_micros)} if rows.has_value else {}
    fields: list[tuple[str, str]] = [("columns", ">i2"), *_pairs(values), *missing, *_pairs(value)]
    fields += [] if rows.has_value else [("n_value_micros", ">i4")]
    heads = np.zeros(len(rows.time_ms), np.dtype([*fields, ("n_features", ">i4")]))
    heads["columns"] = len(COLUMNS)
    for name, (form, content) in {**values, **value}.items():
        heads[f"n_{name}"], heads[name] = np.dtype(form).itemsize, content
    if not rows.has_value:
        heads["n_value_micros"] = -1
    return heads


def _pairs(values: dict[str, tuple[str, Any]]) -> list[tuple[str, str]]:
    """Each field's length, then the field."""
    return [
        pair for name, (form, _) in values.items() for pair in ((f"n_{name}", ">i4"), (name, form))
    ]


def _joined(heads: npt.NDArray[np.void], tails: Bytes, widths: Int64s) -> Bytes:
    """Each head followed by its tail, of which `widths` gives the bytes."""
    size = heads.dtype.itemsize
    starts = np.cumsum(widths + size) - widths - size
    places = (starts[:, None] + np.arange(size)).ravel()
    rows = np.empty(len(heads) * size + len(tails), np.uint8)
    is_tail = np.ones(len(rows), np.bool_)
    is_tail[places] = False
    rows[places], rows[is_tail] = np.frombuffer(heads.tobytes(), np.uint8), tails
    return rows
