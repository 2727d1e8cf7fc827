"""The compiled look-up of feature values: an open-addressed hash table built for each chunk.

One function without helpers or allocations: it compiles in a fraction of a second.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from models.types import Int64s

_LEAST_BITS = 11


def resolve(keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
    """See `kernels.Kernel.resolve`."""
    ids = np.ascontiguousarray(ids)
    # Memory that is never written is never taken: most chunks bear few values.
    rows, born = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    known, at, count = np.ascontiguousarray(keys), 0, 0
    while True:
        slots = _filled(known)
        at, count = _enter(slots, ids, at, rows, born, count, len(keys))
        if at == len(ids):
            return rows, born[:count].copy()
        known = np.concatenate((keys, ids[born[:count]]))


def _filled(keys: Int64s) -> Int64s:
    """A table of (key, row + 1) that has room for as many keys again: int64 [slots, 2]."""
    bits = max(_LEAST_BITS, (4 * len(keys)).bit_length())
    slots = np.zeros((1 << bits, 2), np.int64)
    unused = np.empty(len(keys), np.int64)
    _enter(slots, keys, 0, unused, unused, 0, 0)
    return slots


@njit(nogil=True, cache=True, no_cfunc_wrapper=True)
def _enter(slots, ids, at, rows, born, count, before):
    """The rows of `ids` from position `at` on; those not in the table get the next row numbers.

    `count`: how many values of `ids` were unseen so far, the first positions of which are in
    `born`; `before`: the rows before those. Stops when the table is half full. Returns the position
    reached and the count.
    """
    mask = slots.shape[0] - 1
    while at < len(ids) and 2 * (before + count) <= mask:
        key = ids[at]
        mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
        slot = np.int64(mixed ^ (mixed >> np.uint64(32))) & mask
        while slots[slot, 1] != 0 and slots[slot, 0] != key:
            slot = (slot + 1) & mask
        if slots[slot, 1] == 0:
            slots[slot, 0] = key
            born[count] = at
            count += 1
            slots[slot, 1] = before + count
        rows[at] = slots[slot, 1] - 1
        at += 1
    return at, count
