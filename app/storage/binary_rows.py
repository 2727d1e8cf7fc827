"""Impressions and clicks out of PostgreSQL's binary COPY: found, put in order and joined by NumPy.

The format: a header of 19 bytes, rows, two bytes of 0xff. A row is an int16 count of fields and,
for each field, an int32 length and the bytes, all big-endian. Every field here but an impression's
features, which come last, has a fixed length, so the places inside a row are known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import Blobs, Bools, Bytes, Int64s

Uint64s = npt.NDArray[np.uint64]
Int16s = npt.NDArray[np.int16]

EPOCH_2000_MS = 946_684_800_000
"""Milliseconds since 1970 of the time that PostgreSQL counts from."""

_START, _END = 19, 2
_KEY = {"time_us": (6, ">i8"), "high": (18, ">u8"), "low": (26, ">u8"), "slot": (38, ">i2")}
_AD = (44, ">i8")
_N_FEATURES = (52, ">i4")
_CLICK_WIDTH = 40
_FEATURES = 56
_LENGTH = struct.Struct(">i")
_AT_ONCE = 1 << 20

# What every impression's row has at these places: its count of fields and their fixed lengths. The
# rarest byte comes first; it is looked for everywhere, the others only where it is found.
_FIXED = {17: 16, 1: 5, 0: 0, 2: 0, 3: 0, 4: 0, 5: 8, 14: 0, 15: 0, 16: 0}
_FIXED |= {34: 0, 35: 0, 36: 0, 37: 2, 40: 0, 41: 0, 42: 0, 43: 8}


@dataclass(frozen=True, slots=True)
class Keys:
    """What tells n impressions, or n clicks, apart, and gives impressions their order.

    `time_us`: int64 [n], µs since 2000; `high` and `low`: uint64 [n], halves of the decision's id;
    `slot`: int16 [n].
    """

    time_us: Int64s
    high: Uint64s
    low: Uint64s
    slot: Int16s

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: Int64s) -> Keys:
        """The keys of these rows."""
        return Keys(self.time_us[rows], self.high[rows], self.low[rows], self.slot[rows])


@dataclass(frozen=True, slots=True)
class Impressions:
    """n impressions in the order of their keys; `ad_id`: int64 [n]; `features`: n blobs."""

    keys: Keys
    ad_id: Int64s
    features: Blobs


def impressions(data: bytes | bytearray) -> Impressions:
    """The rows of a COPY of decided_at, decision_id, slot, ad_id and features, put in order.

    `data` is kept, not copied.
    """
    starts, heads, lengths = _rows(data)
    keys, ads = _keys(heads), _column(heads, *_AD)
    order = in_order(keys)
    features = Blobs(data, starts[order] + _FEATURES, lengths[order])
    return Impressions(keys.take(order), ads[order], features)


def clicks(data: bytes | bytearray) -> Keys:
    """The rows of a COPY of decided_at, decision_id and slot, as they come."""
    rows = np.frombuffer(data, np.uint8)[_START : len(data) - _END]
    return _keys(rows.reshape(-1, _CLICK_WIDTH))


def in_order(keys: Keys) -> Int64s:
    """The rows by time, decision and slot.

    Rows come by time more or less, which is sorted fast; only those of one time are compared in
    full.
    """
    order = np.argsort(keys.time_us, kind="stable")
    time = keys.time_us[order]
    is_tied = np.zeros(len(order), np.bool_)
    same = time[1:] == time[:-1]
    is_tied[1:] = same
    is_tied[:-1] |= same
    some = order[is_tied]
    order[is_tied] = some[_sorted(keys.take(some))]
    return order


def clicked(shown: Keys, clicks: Keys) -> Bools:
    """Which of the impressions have a click: bool [n]. `shown` is in order; keys are distinct."""
    found = np.zeros(len(shown), np.bool_)
    near = _of_times(shown.time_us, clicks.time_us)
    some = shown.take(near)
    both = Keys(*(np.concatenate((getattr(some, name), getattr(clicks, name))) for name in _KEY))
    order = _sorted(both)  # stable: an impression comes before its click
    ordered = both.take(order)
    has_click = np.ones(max(len(both) - 1, 0), np.bool_)
    for name in _KEY:
        column = getattr(ordered, name)
        has_click &= column[1:] == column[:-1]
    found[near[order[:-1][has_click]]] = True
    return found


def _sorted(keys: Keys) -> Int64s:
    return np.lexsort((keys.slot, keys.low, keys.high, keys.time_us))


def _of_times(times: Int64s, wanted: Int64s) -> Int64s:
    """Where ascending `times` are among `wanted`."""
    distinct = np.unique(wanted)
    first, last = (times.searchsorted(distinct, side) for side in ("left", "right"))
    edges = np.bincount(first, minlength=len(times) + 1)
    edges -= np.bincount(last, minlength=len(times) + 1)
    return np.flatnonzero(np.cumsum(edges[:-1]))


def _keys(heads: Bytes) -> Keys:
    return Keys(*(_column(heads, *place) for place in _KEY.values()))


def _column(heads: Bytes, at: int, form: str) -> npt.NDArray[Any]:
    """The field at byte `at` of each row, in the machine's byte order."""
    given = np.dtype(form)
    field = np.ascontiguousarray(heads[:, at : at + given.itemsize]).view(given)[:, 0]
    return field.astype(given.newbyteorder("="))


def _rows(data: bytes | bytearray) -> tuple[Int64s, Bytes, Int64s]:
    """Where each impression's row starts, its first `_FEATURES` bytes, the length of its features.

    A row's place follows only from the length of the one before it. Following them takes a loop;
    places that look like a row are found much faster, and when each leads to the next they are the
    rows. Features that look like a row lead elsewhere: then the loop decides.
    """
    starts = _alike(data)
    heads, lengths = _heads(data, starts)
    follow = np.concatenate(([_START], starts + _FEATURES + lengths))
    if not np.array_equal(follow, np.append(starts, len(data) - _END)):
        starts = _walked(data)
        heads, lengths = _heads(data, starts)
    return starts, heads, lengths


def _heads(data: bytes | bytearray, starts: Int64s) -> tuple[Bytes, Int64s]:
    heads = Blobs(data, starts, starts).heads(_FEATURES)
    return heads, _column(heads, *_N_FEATURES).astype(np.int64)


def _alike(data: bytes | bytearray) -> Int64s:
    """Where the fixed bytes of a row stand, a slice at a time: the whole is hundreds of MB."""
    values = np.frombuffer(data, np.uint8)
    found = [np.zeros(0, np.int64)]
    (rarest, sought), *others = _FIXED.items()
    stop = len(data) - _END - _FEATURES + 1
    for first in range(_START, stop, _AT_ONCE):
        last = min(first + _AT_ONCE, stop)
        places = np.flatnonzero(values[first + rarest : last + rarest] == sought) + first
        for offset, value in others:
            places = places[values[places + offset] == value]
        found.append(places)
    return np.concatenate(found)


def _walked(data: bytes | bytearray) -> Int64s:
    starts, at = [], _START
    while at < len(data) - _END:
        starts.append(at)
        (length,) = _LENGTH.unpack_from(data, at + _N_FEATURES[0])
        at += _FEATURES + length
    return np.array(starts, np.int64)
