"""The compiled look-up of feature values: an open-addressed hash table built for each chunk."""

from __future__ import annotations

import numpy as np
from numba import njit

from models.types import Int64s

_jit = njit(nogil=True, cache=True)


def resolve(keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
    """See `kernels.Kernel.resolve`."""
    rows, born = _resolve(np.ascontiguousarray(keys), np.ascontiguousarray(ids))
    return rows, born


@_jit
def _place(slots, shift, key, row):
    """The slot of `key` in an open-addressed table of (key, row + 1), which gets it if new."""
    mask = slots.shape[0] - 1
    at = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift)) & mask
    while slots[at, 1] != 0 and slots[at, 0] != key:
        at = (at + 1) & mask
    if slots[at, 1] == 0:
        slots[at, 0] = key
        slots[at, 1] = row + 1
    return slots[at, 1] - 1


@_jit
def _spread(slots, bits):
    """The same table, twice as large or more."""
    larger = np.zeros((1 << bits, 2), np.int64)
    for at in range(slots.shape[0]):
        if slots[at, 1] != 0:
            _place(larger, 64 - bits, slots[at, 0], slots[at, 1] - 1)
    return larger


@_jit
def _resolve(keys, ids):
    bits = 10
    while (1 << bits) < 4 * len(keys):
        bits += 1
    slots = np.zeros((1 << bits, 2), np.int64)
    for row in range(len(keys)):
        _place(slots, 64 - bits, keys[row], row)
    rows = np.empty(len(ids), np.int64)
    born = np.empty(1024, np.int64)
    count = len(keys)
    for n in range(len(ids)):
        row = _place(slots, 64 - bits, ids[n], count)
        rows[n] = row
        if row == count:
            if count - len(keys) == len(born):
                born = np.concatenate((born, np.empty_like(born)))
            born[count - len(keys)] = n
            count += 1
            if 2 * count > slots.shape[0]:
                bits += 1
                slots = _spread(slots, bits)
    return rows, born[: count - len(keys)].copy()
