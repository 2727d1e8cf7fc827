"""The starts and ends of flights that come next: between them nobody looks at every ad again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.types import Int64s

ALWAYS_MS, NEVER_MS = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""Start of a flight without a start, end of one without an end."""

_AHEAD = 4096


@dataclass(frozen=True, slots=True)
class Edges:
    """Every start and end of a flight from some time on and before `until_ms`, in order.

    `times`: int64 [m], ascending, ms since 1970; `rows`: int64 [m], whose flight it is.
    """

    times: Int64s
    rows: Int64s
    until_ms: int

    def passed(self, now_ms: int) -> int:
        """How many of them lie at this time or before it."""
        return int(self.times.searchsorted(now_ms, side="right"))

    def after(self, count: int) -> Edges:
        """Without the first so many."""
        return Edges(self.times[count:], self.rows[count:], self.until_ms)

    @property
    def next_ms(self) -> int:
        """When the next one is, or may be."""
        return int(self.times[0]) if len(self.times) else self.until_ms


def edges_after(starts: Int64s, ends: Int64s, now_ms: int) -> Edges:
    """The next few thousand edges of n flights (int64 [n] each), those at `now_ms` left out."""
    later = [np.flatnonzero(times > now_ms) for times in (starts, ends)]
    rows = np.concatenate(later)
    times = np.concatenate((starts[later[0]], ends[later[1]]))
    until_ms = NEVER_MS
    if len(times) > _AHEAD:
        until_ms = int(np.partition(times, _AHEAD)[_AHEAD])
    soon = np.flatnonzero(times < until_ms)
    order = soon[np.argsort(times[soon])]
    return Edges(times[order], rows[order], until_ms)


def last_edge(starts: Int64s, ends: Int64s, now_ms: int) -> int:
    """When the last edge at `now_ms` or before was; `ALWAYS_MS` if there was none."""
    return max(int(times.max(where=times <= now_ms, initial=ALWAYS_MS)) for times in (starts, ends))
