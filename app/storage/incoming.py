"""Impressions out of a binary COPY, taken apart while it comes: the server is not done sooner.

A row's place follows only from the length of the one before it. Following them takes a loop; places
that look like a row are found much faster, and when each leads to the next they are the rows.
Features that look like a row lead elsewhere: then the loop decides.
"""

from __future__ import annotations

import struct

import numpy as np

from app.storage.binary_rows import (
    HEAD,
    HEADER,
    N_FEATURES,
    TRAILER,
    Heads,
    Impressions,
    heads,
    impressions,
)
from models.types import Bytes, Int64s

ROOM = 1 << 16

_LENGTH = struct.Struct(">i")
_AT_ONCE = 1 << 20
_MUCH = 1 << 23

# What every impression's row has at these places: its count of fields and their fixed lengths. The
# rarest byte comes first; it is looked for everywhere, the others only where it is found.
_FIXED = {17: 16, 1: 5, 0: 0, 2: 0, 3: 0, 4: 0, 5: 8, 14: 0, 15: 0, 16: 0}
_FIXED |= {34: 0, 35: 0, 36: 0, 37: 2, 40: 0, 41: 0, 42: 0, 43: 8}


class Incoming:
    """A COPY of decided_at, decision_id, slot, ad_id and features of impressions.

    One thread may add what comes while another takes apart what is there. `room`: bytes that are
    expected at most; memory is taken for those that come.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._data = np.empty(room, np.uint8)
        self._size, self._next = 0, HEADER
        self._parts: list[Heads] = []

    def add(self, part: bytes) -> None:
        """What came next."""
        end = self._size + len(part)
        if end > len(self._data):
            # Whoever takes the rows apart holds on to the array that it began with.
            grown = np.empty(2 * end, np.uint8)
            grown[: self._size] = self._data[: self._size]
            self._data = grown
        self._data[self._size : end] = np.frombuffer(part, np.uint8)
        self._size = end

    @property
    def is_much(self) -> bool:
        """Whether so much waits that taking it apart pays."""
        return self._size - self._next > _MUCH

    def take_apart(self) -> None:
        """The rows that are here whole by now."""
        size = self._size  # looked at before the array, which may be replaced by a larger one
        found = _whole(self._data[:size], self._next)
        if len(found.starts):
            self._parts.append(found)
            self._next = int(_ends(found)[-1])

    def all(self) -> Impressions:
        """All rows in the order of their keys, once the COPY has ended.

        Raises `ValueError` where it does not end with a row.
        """
        self.take_apart()
        data = self._data[: self._size]
        if self._next != len(data) - TRAILER:
            raise ValueError(f"byte {self._next} of {len(data)} is not a row of an impression")
        return impressions(data, self._parts or [heads(data, np.zeros(0, np.int64))])


def _whole(data: Bytes, first: int) -> Heads:
    """The rows from byte `first` on, of which one starts there, that the data holds whole."""
    found = heads(data, _alike(data, first))
    leads_to = np.concatenate(([first], _ends(found)))
    if np.array_equal(leads_to[:-1], found.starts) and leads_to[-1] <= len(data):
        return found
    return heads(data, _walked(data, first))


def _ends(found: Heads) -> Int64s:
    return found.starts + HEAD + found.lengths


def _alike(data: Bytes, first: int) -> Int64s:
    """Where the fixed bytes of a row stand, a slice at a time: the whole is hundreds of MB."""
    found = [np.zeros(0, np.int64)]
    (rarest, sought), *others = _FIXED.items()
    stop = len(data) - HEAD + 1
    for start in range(first, stop, _AT_ONCE):
        last = min(start + _AT_ONCE, stop)
        places = np.flatnonzero(data[start + rarest : last + rarest] == sought) + start
        for offset, value in others:
            places = places[data[places + offset] == value]
        found.append(places)
    return np.concatenate(found)


def _walked(data: Bytes, first: int) -> Int64s:
    starts, at = [], first
    while at + HEAD <= len(data):
        (length,) = _LENGTH.unpack_from(data.data, at + N_FEATURES)
        if length < 0 or at + HEAD + length > len(data):
            break
        starts.append(at)
        at += HEAD + length
    return np.array(starts, np.int64)
