"""When an ad's daily schedule lets it serve: the hours of the clock on a wall of its time zone.

An hour that daylight saving repeats counts twice, one that it leaves out not at all: what counts
is what the clock shows.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import numpy.typing as npt

from models.types import DAYS, Bools, Hours, Int64s, Schedule

Int32s = npt.NDArray[np.int32]

_DAY_MINUTES = 24 * 60
_AHEAD_DAYS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_370_764_800_000  # the year 9999: a clock that shows more has other troubles


@dataclass(frozen=True, slots=True)
class Spell:
    """A time start ≤ now < end (ms since 1970) through which a schedule is open, or is not."""

    start_ms: int
    end_ms: int
    is_open: bool


class Timetable:
    """One schedule; it remembers the present spell, so asking again costs a comparison."""

    __slots__ = ("_open", "_spell", "_turn", "_zone")

    def __init__(self, schedule: Schedule) -> None:
        self._zone = ZoneInfo(schedule.timezone)
        self._open = _minutes_open(schedule.hours)
        self._spell = Spell(0, 0, False)
        self._turn = threading.Lock()

    def spell(self, now_ms: int) -> Spell:
        """The spell that this time is in, not always the whole of it."""
        known = self._spell
        if known.start_ms <= now_ms < known.end_ms:
            return known
        with self._turn:  # a time zone's first use from two threads at once is not worth a thought
            self._spell = found = self._found(now_ms)
        return found

    def _found(self, now_ms: int) -> Spell:
        now_ms = min(max(now_ms, 0), _LAST_MS)
        edges = self._edges(now_ms)
        at = bisect_right(edges, now_ms)
        is_open = self._is_open(now_ms)
        before = [one for one in edges[:at] if self._is_open(one - 1) != is_open]
        after = [one for one in edges[at:] if self._is_open(one) != is_open]
        return Spell(before[-1] if before else edges[0], after[0] if after else edges[-1], is_open)

    def _is_open(self, now_ms: int) -> bool:
        shown = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(self._zone)
        minute = shown.hour * 60 + shown.minute
        return any(start <= minute < end for start, end in self._open[shown.weekday()])

    def _edges(self, now_ms: int) -> list[int]:
        """Every moment from a day before to a week ahead at which something may change."""
        today = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(self._zone).date()
        edges = set()
        for ahead in range(-1, _AHEAD_DAYS + 1):
            day = today + timedelta(days=ahead)
            edges |= {self._at(day, 0), *self._shifts(day)}
            for start, end in self._open[day.weekday()]:
                edges |= {self._at(day, minute, fold) for minute in (start, end) for fold in (0, 1)}
        return sorted(edges)

    def _at(self, day: date, minute: int, fold: int = 0) -> int:
        """When the clock shows this, ms since 1970."""
        extra, minute = divmod(minute, _DAY_MINUTES)
        day += timedelta(days=extra)
        shown = datetime(
            *(day.year, day.month, day.day, minute // 60, minute % 60),
            tzinfo=self._zone,
            fold=fold,
        )
        return _ms(shown)

    def _shifts(self, day: date) -> list[int]:
        """The moment of this day at which the clock is set forward or back, if there is one."""
        low, high = self._at(day, 0), self._at(day + timedelta(days=1), 0)
        if self._offset(low) == self._offset(high):
            return []
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == self._offset(low):
                low = middle
            else:
                high = middle
        return [high]

    def _offset(self, now_ms: int) -> timedelta | None:
        return (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(self._zone).utcoffset()


@lru_cache(maxsize=4096)
def timetable(schedule: Schedule) -> Timetable:
    """The timetable of a schedule: one for all catalogs of this process."""
    return Timetable(schedule)


@lru_cache(maxsize=4096)
def mark(schedule: Schedule | None) -> int:
    """A number that stands for the schedule in a column, the same in every process; 0 for none."""
    if schedule is None:
        return 0
    digest = blake2b(msgspec.msgpack.encode(schedule), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


@dataclass(frozen=True, slots=True)
class Shut:
    """Which rows their schedule keeps from serving (bool [n]), for start ≤ now < end in ms."""

    rows: Bools
    start_ms: int
    end_ms: int


def shut(marks: Int64s, schedules: Mapping[int, Schedule], now_ms: int) -> Shut:
    """Which rows may not serve now, and for how long that holds.

    `marks`: int64 [n], which of `schedules` (at least one) is the row's, 0 for none.
    """
    spells = [timetable(one).spell(now_ms) for one in schedules.values()]
    is_shut = np.array([False, *(not spell.is_open for spell in spells)])
    return Shut(
        is_shut.take(_codes(marks, schedules)),
        max(spell.start_ms for spell in spells),
        min(spell.end_ms for spell in spells),
    )


_Coded = tuple[Int64s, Mapping[int, Schedule], Int32s]
_coded: deque[_Coded] = deque(maxlen=4)
"""The newest catalogs' codes: most changes of a catalog leave the schedules as they were."""


def _codes(marks: Int64s, schedules: Mapping[int, Schedule]) -> Int32s:
    """The place of each row's schedule among all, from 1 on; 0 for none: int32 [n]."""
    for known_marks, known_schedules, codes in tuple(_coded):
        if known_marks is marks and known_schedules is schedules:
            return codes
    keys = np.array([0, *schedules], np.int64)
    order = np.argsort(keys)
    found = order[np.searchsorted(keys[order], marks)].astype(np.int32)
    _coded.append((marks, schedules, found))
    return found


def _minutes_open(hours: tuple[Hours, ...]) -> list[list[tuple[int, int]]]:
    """For Monday to Sunday the minutes (start, end) of the day in which it is open.

    What ends at or before its start goes on into the next day.
    """
    week: list[list[tuple[int, int]]] = [[] for _ in DAYS]
    for one in hours:
        for day in map(DAYS.index, one.days):
            if one.start_minute < one.end_minute:
                week[day].append((one.start_minute, one.end_minute))
            else:
                week[day].append((one.start_minute, _DAY_MINUTES))
                week[(day + 1) % len(DAYS)].append((0, one.end_minute))
    return week


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
