"""The encoded features of many ads at once, from the bytes in which a catalog keeps them.

An item has a count byte for each of the ad features, then that many hashes of 8 bytes.
"""

from __future__ import annotations

import numpy as np

from app.serving.items import Items
from models.types import Bools, Bytes, Int64s, Ragged


def features_of(encoded: Items, rows: Int64s, features: int) -> Ragged:
    """The features of some rows (int64 [m]) as one CSR block of m rows, `features` each."""
    counts = _counts(encoded, rows, features).astype(np.int64)
    ptr = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=ptr[1:])
    sizes = counts.sum(axis=1)
    # Number i of all ids lies 8 bytes behind number i − 1, but for where a new row begins.
    firsts = encoded.starts[rows] + features - 8 * (np.cumsum(sizes) - sizes)
    places = np.repeat(firsts, sizes) + 8 * np.arange(ptr[-1])
    return Ragged(_words(encoded, places), ptr, features)


def own_keys(encoded: Items, rows: Int64s, features: int, own: int) -> Int64s:
    """The hash of the first value of feature `own` in each of some rows: int64 [m]."""
    before = _counts(encoded, rows, features)[:, :own].sum(axis=1, dtype=np.int64)
    return _words(encoded, encoded.starts[rows] + features + 8 * before)


def _counts(encoded: Items, rows: Int64s, features: int) -> Bytes:
    """The count bytes of some rows: uint8 [m, features]."""
    found = np.empty(len(rows), f"V{features}")
    _fill(found, encoded, encoded.starts[rows])
    return found.view(np.uint8).reshape(len(rows), features)


def _words(encoded: Items, places: Int64s) -> Int64s:
    """The eight bytes at some places of the buffer as numbers, little end first: int64 [m]."""
    found = np.empty(len(places), "<i8")
    _fill(found, encoded, places)
    return found


def _fill(found: np.ndarray, encoded: Items, places: Int64s) -> None:
    """Copy an item of `found`'s type from each place; only what is asked for is read."""
    inside: Bools = places < len(encoded.base)
    if inside.all():
        found[:] = _everywhere(encoded.base, found.dtype)[places]
        return
    beyond = ~inside
    found[inside] = _everywhere(encoded.base, found.dtype)[places[inside]]
    recent = np.frombuffer(encoded.recent, np.uint8)
    found[beyond] = _everywhere(recent, found.dtype)[places[beyond] - len(encoded.base)]


def _everywhere(data: Bytes, kind: np.dtype) -> np.ndarray:
    """An item of this type at every byte of a buffer; no copy."""
    places = max(len(data) - kind.itemsize + 1, 0)
    return np.ndarray((places,), kind, data, strides=(1,))
