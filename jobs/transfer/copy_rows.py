"""Columns of events as the bytes of PostgreSQL's binary COPY, laid out by NumPy.

Rows of one type, placement and width of features have the same layout: a few assignments fill all
of them. To join rows of different widths in one order takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from app.storage.binary_rows import EPOCH_2000_MS
from jobs.logfile import Dictionary
from models.types import Bytes, Int64s

COLUMNS = (
    *("decided_at", "decision_id", "slot", "ad_id", "snapshot_id", "catalog_version"),
    *("price_micros", "propensity", "xid", "type", "placement", "value_micros", "features"),
)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

Voids = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Rows:
    """n events of one type and placement.

    Integers [n] but where said: `decision` and `snapshot`: V16, the ids' bytes; `propensity`:
    float; `has_value`: bool, whether `value_micros` is one. `features`: n times the same number of
    bytes, as `models.features.pack` makes them; None for types that have none. `xid`: what a
    training chunk is bounded by, see `app.storage.event_import`.
    """

    kind: str
    placement: str
    time_ms: Int64s
    decision: Voids
    slot: Int64s
    ad_id: Int64s
    snapshot: Voids
    catalog_version: Int64s
    price_micros: Int64s
    propensity: npt.NDArray[np.float64]
    value_micros: Int64s
    has_value: bool
    features: Voids | None = None
    xid: Int64s | None = None

    def with_features(self, places: Int64s, features: Voids) -> Rows:
        """The events at these places, with their features."""
        if len(places) == len(self.time_ms):
            return replace(self, features=features)
        columns = {name: getattr(self, name)[places] for name in _BY_ROW}
        return replace(self, **columns, features=features)


_BY_ROW = (
    *("time_ms", "decision", "slot", "ad_id", "snapshot", "catalog_version", "price_micros"),
    *("propensity", "value_micros"),
)


def copied(rows: Rows) -> bytes:
    """The rows without header and trailer. They need their `xid`."""
    heads = _heads(rows)
    if rows.features is None:
        heads["n_features"] = -1
    else:
        heads["n_features"], heads["features"] = rows.features.dtype.itemsize, rows.features
    return heads.tobytes()


def packed(
    dictionaries: Sequence[Dictionary], codes: Sequence[Int64s]
) -> Iterator[tuple[Int64s, Voids]]:
    """What `models.features.pack` makes of n rows, given one code per row and feature.

    In groups of rows that have as many values of each feature: the places of a group's rows,
    ascending, and their bytes.
    """
    pairs = list(zip(dictionaries, codes, strict=True))
    counts = np.column_stack([known.counts[code] for known, code in pairs]).astype(np.uint8)
    first, group = _alike(counts)
    for number, row in enumerate(first.tolist()):
        places = np.flatnonzero(group == number) if len(first) > 1 else np.arange(len(counts))
        width = int(counts[row].sum())
        bytes_ = np.empty(len(places), [("counts", "u1", (len(pairs),)), ("ids", "<i8", (width,))])
        bytes_["counts"] = counts[row]
        start = 0
        for (known, code), count in zip(pairs, counts[row].tolist(), strict=True):
            source = known.starts[code[places]]
            for nth in range(count):
                bytes_["ids"][:, start + nth] = known.ids[source + nth]
            start += count
        yield places, bytes_.view(f"V{bytes_.dtype.itemsize}")


def of_one_length(blobs: Sequence[bytes]) -> Iterator[tuple[Int64s, Voids]]:
    """The same of features that are packed already."""
    lengths = np.fromiter(map(len, blobs), np.int64, len(blobs))
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        joined = b"".join(blobs[place] for place in places.tolist())
        yield places, np.frombuffer(joined, f"V{length}")


def _alike(counts: Bytes) -> tuple[Int64s, Int64s]:
    """A row of each different content, and for every row which of them it equals."""
    varying = np.flatnonzero((counts != counts[0]).any(axis=0))
    if len(varying) > 7:
        _, first, group = np.unique(counts, axis=0, return_index=True, return_inverse=True)
        return first, group.ravel()
    key = np.zeros(len(counts), np.int64)
    for column in varying.tolist():
        key = key << 8 | counts[:, column]
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    return first, group


def _heads(rows: Rows) -> npt.NDArray[np.void]:
    """All rows with room for their features."""
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
        "xid": (">i8", rows.xid),
        "type": (f"V{len(kind)}", np.void(kind)),
    }
    # A field of no bytes is no field of NumPy's: its length alone is written.
    values |= {"placement": (f"V{len(placement)}", np.void(placement))} if placement else {}
    missing: list[tuple[str, str]] = [] if placement else [("n_placement", ">i4")]
    value = {"value_micros": (">i8", rows.value_micros)} if rows.has_value else {}
    fields: list[tuple[str, str]] = [("columns", ">i2"), *_pairs(values), *missing, *_pairs(value)]
    fields += [] if rows.has_value else [("n_value_micros", ">i4")]
    fields.append(("n_features", ">i4"))
    if rows.features is not None:
        fields.append(("features", rows.features.dtype.str))
    heads = np.empty(len(rows.time_ms), np.dtype(fields))
    heads["columns"] = len(COLUMNS)
    for name, (form, content) in {**values, **value}.items():
        heads[f"n_{name}"], heads[name] = np.dtype(form).itemsize, content
    if not rows.has_value:
        heads["n_value_micros"] = -1
    if not placement:
        heads["n_placement"] = 0
    return heads


def _pairs(values: dict[str, tuple[str, Any]]) -> list[tuple[str, str]]:
    """Each field's length, then the field."""
    return [
        pair for name, (form, _) in values.items() for pair in ((f"n_{name}", ">i4"), (name, form))
    ]
