"""The values that the trainer keeps: growth by what a chunk brings, collection of what is unseen.

A value leaves the trainer's state once it has been unseen for longer than the schema's
`value_ttl_days`, unless an ad that is not retired carries it: a paused ad, or one out of flight,
keeps its parameters and duals however long it rests. A value that comes back after it was collected
starts anew, as one never seen; the order of the rows that stay is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from models.offset import State, Table
from models.types import Int64s, Ragged

_DAY_MS = 86_400_000
_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Living:
    """The rows of each side that are not collected: int64, ascending; None for every row."""

    user: Int64s | None = None
    ad: Int64s | None = None


EVERYTHING = Living()


def living(state: State, ads: Ragged, *, now_ms: int, ttl_days: float) -> Living:
    """The rows of `state` that stay at `now_ms`; with a `ttl_days` of 0 all of them do.

    `ads`: the encoded features of every ad that is not retired, active or paused, in flight or not.
    """
    if not ttl_days:
        return EVERYTHING
    oldest_ms = now_ms - ttl_days * _DAY_MS
    return Living(_seen(state.user, oldest_ms, None), _seen(state.ad, oldest_ms, ads.ids))


def _seen(table: Table, oldest_ms: float, carried: Int64s | None) -> Int64s | None:
    unseen = np.flatnonzero(table.touched_ms < oldest_ms)
    if carried is not None and len(unseen):
        unseen = unseen[~np.isin(table.keys[unseen], carried)]
    if not len(unseen):
        return None
    stays = np.ones(len(table), np.bool_)
    stays[unseen] = False
    return np.flatnonzero(stays)


def count_collected(state: State, rows: Living) -> tuple[int, int]:
    """How many user values and ad values of `state` are not among `rows`."""
    sides = ((state.user, rows.user), (state.ad, rows.ad))
    user, ad = (0 if kept is None else len(table) - len(kept) for table, kept in sides)
    return user, ad


def collected(state: State, rows: Living) -> State:
    """A copy of `state` with the given rows alone, in the order that they had."""
    user, ad = extended(state.user, rows.user), extended(state.ad, rows.ad)
    return replace(state, user=user, ad=ad)


def extended(table: Table, rows: Int64s | None, new: Table | None = None) -> Table:
    """The given rows of `table` (None for all), then those of `new`; nothing is shared.

    Each array is copied once, straight to its place: a table may take most of the memory.
    """
    return Table(
        *(
            _joined(getattr(table, name), rows, None if new is None else getattr(new, name))
            for name in Table.__slots__
        )
    )


def _joined(array: _Array, rows: Int64s | None, new: _Array | None) -> _Array:
    kept = len(array) if rows is None else len(rows)
    more = 0 if new is None else len(new)
    made = np.empty((kept + more, *array.shape[1:]), array.dtype)
    if rows is None:
        made[:kept] = array
    else:
        # The rows are in range; the default mode would copy the output to be safe from errors.
        np.take(array, rows, axis=0, out=made[:kept], mode="clip")
    if new is not None:
        made[kept:] = new
    return made


def row_bytes(width: int) -> int:
    """Bytes of one row of the trainer's state: two float32 of `width`, and what else a value has.

    29 of them are keys and times (8 each), main effect, its evidence and dual (4 each) and the
    feature's number (1).
    """
    return 2 * 4 * width + 29


def published_bytes(width: int, *, user: bool) -> int:
    """Bytes of one value of the served model.

    Latents, key and main effect; a user's its feature's number, an ad's its main effect's variance.
    """
    return 4 * width + 12 + (1 if user else 4)
