"""Impressions and clicks out of PostgreSQL's binary COPY: put in order and joined by NumPy.

The format: a header of 19 bytes, rows, two bytes of 0xff. A row is an int16 count of fields and,
for each field, an int32 length and the bytes, all big-endian. Every field here but an impression's
features, which come last, has a fixed length, so the places inside a row are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.types import Blobs, Bools, Bytes, Int64s

Uint64s = npt.NDArray[np.uint64]
Int16s = npt.NDArray[np.int16]

EPOCH_2000_MS = 946_684_800_000
"""Milliseconds since 1970 of the time that PostgreSQL counts from."""

HEADER, TRAILER = 19, 2
"""Bytes before the first row and after the last."""
HEAD = 56
"""Bytes of an impression's row before its features."""
N_FEATURES = 52
"""Where in it the length of the features stands, an int32."""

_KEY = {"time_us": (6, ">i8"), "high": (18, ">u8"), "low": (26, ">u8"), "slot": (38, ">i2")}
_AD = (44, ">i8")
_N_FEATURES = (N_FEATURES, ">i4")
_PLACES = ("starts", "lengths")
_CLICK_WIDTH = 40


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


@dataclass(frozen=True, slots=True)
class Heads:
    """What n impressions' rows have before their features, as they come.

    int64 [n]: `ad_id`; `starts`, where each row starts in the data; `lengths` of its features.
    """

    keys: Keys
    ad_id: Int64s
    starts: Int64s
    lengths: Int64s


def heads(data: Bytes, starts: Int64s) -> Heads:
    """The heads of the rows that start there; `data` holds each of them whole."""
    rows = Blobs(data, starts, starts).heads(HEAD)
    lengths = _column(rows, *_N_FEATURES).astype(np.int64)
    return Heads(_keys(rows), _column(rows, *_AD), starts, lengths)


def impressions(data: Bytes, parts: Sequence[Heads]) -> Impressions:
    """All rows in the order of their keys. `data` is kept, not copied."""
    keys = Keys(*(_joined([getattr(part.keys, name) for part in parts]) for name in _KEY))
    starts, lengths = (_joined([getattr(part, name) for part in parts]) for name in _PLACES)
    ads, order = _joined([part.ad_id for part in parts]), in_order(keys)
    features = Blobs(data, starts[order] + HEAD, lengths[order])
    return Impressions(keys.take(order), ads[order], features)


def clicks(data: bytes | bytearray) -> Keys:
    """The rows of a COPY of decided_at, decision_id and slot, as they come."""
    rows = np.frombuffer(data, np.uint8)[HEADER : len(data) - TRAILER]
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


def _joined(columns: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _keys(rows: Bytes) -> Keys:
    return Keys(*(_column(rows, *place) for place in _KEY.values()))


def _column(rows: Bytes, at: int, form: str) -> npt.NDArray[Any]:
    """The field at byte `at` of each row, in the machine's byte order."""
    given = np.dtype(form)
    field = np.ascontiguousarray(rows[:, at : at + given.itemsize]).view(given)[:, 0]
    return field.astype(given.newbyteorder("="))
