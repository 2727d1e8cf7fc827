"""Targeting rules of many rows on one feature in one role, answered by bitmaps.

A role's rules are kept as an inverted file: for each text the rows that list it, and the ranges
with their rows. Which rows have a rule met depends on a request's value alone, so the answer is
kept as a bitmap for each value: for a text that is listed, and for each interval between the
bounds of the ranges. All other values are one and the same.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.index import packed
from models.types import Bools, Bytes, Clause, Float64s, Int64s

Int32s = npt.NDArray[np.int32]
_Key = tuple[int, int]
_CACHE_BYTES = 4_000_000
_NO_VALUE: _Key = (-1, -1)


@dataclass(slots=True)
class Draft:
    """Rules as they are collected, a clause at a time; texts must be canonical."""

    terms: dict[str, int] = field(default_factory=dict)
    term_of: array[int] = field(default_factory=lambda: array("i"))
    row_of: array[int] = field(default_factory=lambda: array("i"))
    holders: array[int] = field(default_factory=lambda: array("i"))
    range_rows: array[int] = field(default_factory=lambda: array("i"))
    minimum: array[float] = field(default_factory=lambda: array("d"))
    maximum: array[float] = field(default_factory=lambda: array("d"))

    def add(self, row: int, clause: Clause, texts: Sequence[str]) -> None:
        """A row's clause; `texts`: its values."""
        self.holders.append(row)
        if clause.values is None:
            self.range_rows.append(row)
            self.minimum.append(-math.inf if clause.minimum is None else clause.minimum)
            self.maximum.append(math.inf if clause.maximum is None else clause.maximum)
            return
        terms = self.terms
        for text in texts:
            self.term_of.append(terms.setdefault(text, len(terms)))
            self.row_of.append(row)

    def rules(self) -> Rules:
        """What was collected, in arrays."""
        return _grouped(
            self.terms,
            np.array(self.term_of, np.int32),
            np.array(self.row_of, np.int32),
            np.array(self.holders, np.int32),
            np.array(self.range_rows, np.int32),
            np.array(self.minimum, np.float64),
            np.array(self.maximum, np.float64),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of some rows, at most one clause a row where the role asks for every clause.

    `terms`: the number t of each listed text, whose rows are `rows[start[t] : start[t + 1]]`,
    int32; `holders`: int32 [h], the rows that have a clause; `range_rows`: int32 [r], `minimum` and
    `maximum`: float64 [r], both inclusive.
    """

    terms: dict[str, int]
    start: Int64s
    rows: Int32s
    holders: Int32s
    range_rows: Int32s
    minimum: Float64s
    maximum: Float64s

    def moved(self, new_rows: Int64s) -> Rules:
        """The same with row i now `new_rows[i]`, dropped where that is negative."""
        rows, holders, ranges = (
            new_rows[old].astype(np.int32) for old in (self.rows, self.holders, self.range_rows)
        )
        kept, open_ = rows >= 0, ranges >= 0
        before: Int64s = np.concatenate((np.zeros(1, np.int64), np.cumsum(kept)))
        return Rules(
            self.terms,
            before[self.start],
            rows[kept],
            holders[holders >= 0],
            ranges[open_],
            self.minimum[open_],
            self.maximum[open_],
        )

    def joined(self, other: Rules) -> Rules:
        """These rules and those of other rows."""
        terms = dict(self.terms)
        renamed = np.array([terms.setdefault(text, len(terms)) for text in other.terms], np.int32)
        return _grouped(
            terms,
            np.concatenate((self.term_of(), renamed[other.term_of()])),
            np.concatenate((self.rows, other.rows)),
            np.concatenate((self.holders, other.holders)),
            np.concatenate((self.range_rows, other.range_rows)),
            np.concatenate((self.minimum, other.minimum)),
            np.concatenate((self.maximum, other.maximum)),
        )

    def term_of(self) -> Int32s:
        """The term of each of `rows`: int32."""
        return np.repeat(np.arange(len(self.terms), dtype=np.int32), np.diff(self.start))


def _grouped(
    terms: dict[str, int],
    term_of: Int32s,
    row_of: Int32s,
    holders: Int32s,
    range_rows: Int32s,
    minimum: Float64s,
    maximum: Float64s,
) -> Rules:
    order = np.argsort(term_of, kind="stable")
    start = np.zeros(len(terms) + 1, np.int64)
    np.cumsum(np.bincount(term_of, minlength=len(terms)), out=start[1:])
    return Rules(terms, start, row_of[order], holders, range_rows, minimum, maximum)


class Met:
    """Which of n rows have their rule met, by value. Safe to share between threads.

    `unheld`: packed bitmap of the rows without a rule.
    """

    def __init__(self, size: int, rules: Rules) -> None:
        self.size, self.rules = size, rules
        held = np.zeros(size, np.bool_)
        held[rules.holders] = True
        self.unheld: Bytes = packed(~held)
        bounds = np.unique(np.concatenate((rules.minimum, rules.maximum)))
        self._bounds: list[float] = bounds.tolist()
        self._cache: dict[_Key, tuple[str, Bytes]] = {}
        self._cached_most = max(64, _CACHE_BYTES // max(1, len(self.unheld)))

    def of(self, texts: Sequence[str]) -> Bytes | None:
        """The packed rows of which one of these values meets the rule; None where that is none.

        Not the caller's own: it must not be changed.
        """
        found = None
        for text in texts:
            met = self._of_one(text)
            if met is not None:
                found = met if found is None else found | met
        return found

    def number_of(self, text: str) -> int:
        """A number that is the same for values that meet the same rules."""
        term = self.rules.terms.get(text, -1)
        if not self._bounds:
            return term
        return term * (2 * len(self._bounds) + 2) + self._interval(text)

    def moved(self, size: int, new_rows: Int64s) -> Met:
        """The same with rows moved (see `Rules.moved`), and as warm as this one."""
        return self.warm(Met(size, self.rules.moved(new_rows)))

    def joined(self, other: Met) -> Met:
        """The rules of both, which are about different rows of as many; as warm as this one."""
        return self.warm(Met(self.size, self.rules.joined(other.rules)))

    def warm(self, made: Met) -> Met:
        """Make ready in another what this has been asked for."""
        for text, _ in tuple(self._cache.values()):
            made._of_one(text)
        return made

    def _of_one(self, text: str) -> Bytes | None:
        key = (self.rules.terms.get(text, -1), self._interval(text) if self._bounds else -1)
        if key == _NO_VALUE:
            return None
        found = self._cache.get(key)
        if found is None:
            found = (text, self._computed(key))
            if len(self._cache) >= self._cached_most:
                self._cache.clear()
            self._cache[key] = found
        return found[1]

    def _interval(self, text: str) -> int:
        """2i + 1 at bounds[i], 2i between it and the one before; −1 for what is no number."""
        try:
            number = float(text)
        except ValueError:
            return -1
        if math.isnan(number):
            return -1
        return bisect_left(self._bounds, number) + bisect_right(self._bounds, number)

    def _computed(self, key: _Key) -> Bytes:
        term, interval = key
        met, rules = np.zeros(self.size, np.bool_), self.rules
        if term >= 0:
            met[rules.rows[rules.start[term] : rules.start[term + 1]]] = True
        if interval >= 0:
            met[rules.range_rows[self._within(interval)]] = True
        return packed(met)

    def _within(self, interval: int) -> Bools:
        """Which ranges hold the numbers of this interval."""
        bounds, rules = self._bounds, self.rules
        above = bounds[interval // 2] if interval // 2 < len(bounds) else math.inf
        if interval % 2:  # at a bound
            found: Bools = (rules.minimum <= above) & (above <= rules.maximum)
            return found
        below = bounds[interval // 2 - 1] if interval else -math.inf
        found = (rules.minimum <= below) & (above <= rules.maximum)
        return found
