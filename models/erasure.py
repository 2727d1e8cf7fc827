"""Erased values: taken out of packed features, of encoded rows, of models and of what is trained.

A value is erased by its hash. Where a feature has other values it is left out; where it was the
only one the feature is missing from then on. Pure: which values are erased is an argument.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.offset import Model, State, found
from models.snapshot import Snapshot
from models.types import Int64s, Ragged
from models.vocabulary import extended

_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Erased:
    """The erased values of users: of each its hash, and the hash of its feature when missing.

    `version` counts erasures: of two that differ the one with the higher version knows more.
    """

    missing: Mapping[int, int] = field(default_factory=dict)
    version: int = 0

    def __bool__(self) -> bool:
        return bool(self.missing)

    def with_more(self, missing: Mapping[int, int], version: int) -> Erased:
        """These values and some more."""
        return Erased({**self.missing, **missing}, version)

    def blob(self, features: bytes) -> bytes:
        """Packed features (`models.features.pack`, of any schema) without erased values.

        The very same object where there is none; so for bytes that are no packed features.
        """
        width = _width(features)
        if width is None:
            return features
        ids = struct.unpack_from(f"<{(len(features) - width) // 8}q", features, width)
        if self.missing.keys().isdisjoint(ids):
            return features
        return self._without(features[:width], ids)

    def _without(self, counts: bytes, ids: tuple[int, ...]) -> bytes:
        left, kept, start = bytearray(), list[int](), 0
        for count in counts:
            values = ids[start : start + count]
            stay = [one for one in values if one not in self.missing]
            stay = stay or [self.missing[values[0]]]
            left.append(len(stay))
            kept += stay
            start += count
        return bytes(left) + struct.pack(f"<{len(kept)}q", *kept)

    def rows(self, side: Ragged) -> Ragged:
        """Encoded users without erased values; the same object where there is none."""
        places = self.places(side.ids)
        if not len(places):
            return side
        cells = side.ptr.searchsorted(places, "right") - 1
        counts = np.diff(side.ptr)
        gone, where = np.bincount(cells, minlength=len(counts)), side.ptr[:-1]
        emptied = np.flatnonzero((gone == counts) & (gone > 0))
        ids, stays = side.ids.copy(), np.ones(len(side.ids), np.bool_)
        stays[places] = False
        first = where[emptied]
        stays[first] = True
        ids[first] = [self.missing[one] for one in ids[first].tolist()]
        counts -= gone
        counts[emptied] = 1
        ptr = np.zeros(len(side.ptr), np.int64)
        np.cumsum(counts, out=ptr[1:])
        return Ragged(ids[stays], ptr, side.features)

    def places(self, ids: Int64s) -> Int64s:
        """Where an erased value stands among `ids`, int64, ascending. Memory is bounded."""
        if not self.missing:
            return np.zeros(0, np.int64)
        keys = np.array(sorted(self.missing), np.int64)
        parts = [
            np.flatnonzero(found(keys, ids[start : start + _AT_ONCE])[1]) + start
            for start in range(0, len(ids), _AT_ONCE)
        ]
        return np.concatenate([np.zeros(0, np.int64), *parts])


NOTHING = Erased()


def without(snapshot: Snapshot, erased: Erased) -> Snapshot:
    """What training goes on from: neither its state nor its probes know an erased value.

    The model is served and scored with values from which erased ones are gone already.
    """
    probes = replace(snapshot.probes, user=erased.rows(snapshot.probes.user))
    return replace(snapshot, state=_state(snapshot.state, erased), probes=probes)


def _state(state: State, erased: Erased) -> State:
    places = erased.places(state.user.keys)
    if not len(places):
        return state
    stays = np.ones(len(state.user), np.bool_)
    stays[places] = False
    return replace(state, user=extended(state.user, np.flatnonzero(stays)))


def zeroed(model: Model, erased: Erased) -> Model:
    """The model with the vectors of erased values at zero, as of unseen ones.

    Where arrays are mapped from files, the pages of these rows alone become memory of this process;
    the files stay as they are. The very same object where nothing is to be done.
    """
    rows = known_rows(model, erased)
    if not len(rows):
        return model
    latent, main = _own(model.user_latent), _own(model.user_main)
    latent[rows], main[rows] = 0.0, 0.0
    return replace(model, user_latent=latent, user_main=main)


def known_rows(model: Model, erased: Erased) -> Int64s:
    """The rows of erased values that still have a vector or a main effect in this model."""
    if not erased:
        return np.zeros(0, np.int64)
    rows, seen = found(model.user_keys, np.array(sorted(erased.missing), np.int64))
    rows = rows[seen]
    is_set = (model.user_latent[rows] != 0).any(axis=1) | (model.user_main[rows] != 0)
    return np.asarray(rows[is_set], np.int64)


def _own(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that takes memory only where it is written to, if the array is mapped from a file."""
    mapped = array if isinstance(array, np.memmap) else array.base
    # What was written to an earlier copy is not in the file; a file may be gone while it is served.
    if isinstance(mapped, np.memmap) and mapped.mode == "r" and mapped.shape == array.shape:
        with suppress(FileNotFoundError):
            again: npt.NDArray[Any] = np.load(str(mapped.filename), "c", allow_pickle=False)
            return again
    return np.array(array)


def _width(features: bytes) -> int | None:
    """How many features packed bytes have; None for bytes that are none.

    n count bytes with the sum s take n + 8 s bytes, which grows with n: at most one n fits.
    """
    width, rest = divmod(len(features), 9)
    if not rest and features[:width] == b"\1" * width:
        return width
    size = 0
    for at, count in enumerate(features):
        size += 1 + 8 * count
        if size >= len(features):
            return at + 1 if size == len(features) and count else None
    return None
