"""When an ad's daily schedule lets it serve: the hours of the clock on a wall of its time zone.

An hour that daylight saving repeats counts twice, one that it leaves out not at all: what counts
is what the clock shows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import numpy.typing as npt

from models.types import DAYS, Bools, Hours, Int64s, Schedule

Int32s = npt.NDArray[np.int32]

_DAY_MINUTES = 24 * 60
_DAY_MS = _DAY_MINUTES * 60_000
_WEEK_MS = len(DAYS) * _DAY_MS
_AHEAD_DAYS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_370_764_800_000  # the year 9999: a clock that shows more has other troubles
UNKNOWN_ZONE = (KeyError, ValueError, OSError)
"""What a name raises that is no time zone here: unknown, no name at all, a folder."""


@dataclass(frozen=True, slots=True)
class Spell:
    """A time start ≤ now < end (ms since 1970) through which a schedule is open, or is not."""

    start_ms: int
    end_ms: int
    is_open: bool


class Timetable:
    """One schedule; it remembers the present spell, so asking again costs a comparison.

    A schedule of a time zone that this host does not know is shut: it may not serve at a time
    that nobody can tell, and no other ad suffers for it.
    """

    __slots__ = ("__weakref__", "_spell", "_turns", "_week_opens", "schedule")

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._week_opens, self._turns = _turns(schedule.hours)
        self._spell = Spell(0, 0, False)

    def spell(self, now_ms: int) -> Spell:
        """The spell that this time is in, not always the whole of it."""
        known = self._spell
        if known.start_ms <= now_ms < known.end_ms:
            return known
        self._spell = found = self._found(min(max(now_ms, 0), _LAST_MS))
        return found

    def _found(self, now_ms: int) -> Spell:
        today = now_ms // _DAY_MS
        stretches = _stretches(self.schedule.timezone, today)
        if not stretches:
            return Spell((today - 1) * _DAY_MS, (today + 1) * _DAY_MS, False)
        at = next(at for at, one in enumerate(stretches) if now_ms < one.end_ms)
        is_open = self._is_open(stretches[at].clock_ms(now_ms))
        start_ms = self._since(now_ms, is_open, stretches[: at + 1])
        return Spell(start_ms, self._until(now_ms, is_open, stretches[at:]), is_open)

    def _is_open(self, clock_ms: int) -> bool:
        return self._week_opens ^ bool(bisect_right(self._turns, clock_ms % _WEEK_MS) & 1)

    def _since(self, now_ms: int, is_open: bool, stretches: Sequence[_Stretch]) -> int:
        """When it became so, at the earliest where the first stretch begins."""
        for one in reversed(stretches):
            clock_ms = one.clock_ms(min(now_ms, one.end_ms - 1))
            if self._is_open(clock_ms) != is_open:
                return one.end_ms
            turned_ms = self._last_turn(clock_ms) - one.offset_ms
            if turned_ms >= one.start_ms:
                return turned_ms
        return stretches[0].start_ms

    def _until(self, now_ms: int, is_open: bool, stretches: Sequence[_Stretch]) -> int:
        """When it ceases to be so, at the latest where the last stretch ends."""
        for one in stretches:
            clock_ms = one.clock_ms(max(now_ms, one.start_ms))
            if self._is_open(clock_ms) != is_open:
                return one.start_ms
            turns_ms = self._next_turn(clock_ms) - one.offset_ms
            if turns_ms < one.end_ms:
                return turns_ms
        return stretches[-1].end_ms

    def _last_turn(self, clock_ms: int) -> int:
        week_ms, turns = clock_ms - clock_ms % _WEEK_MS, self._turns
        at = bisect_right(turns, clock_ms - week_ms)
        if not turns:
            return clock_ms - _WEEK_MS * 2
        return week_ms + (turns[at - 1] if at else turns[-1] - _WEEK_MS)

    def _next_turn(self, clock_ms: int) -> int:
        week_ms, turns = clock_ms - clock_ms % _WEEK_MS, self._turns
        at = bisect_right(turns, clock_ms - week_ms)
        if not turns:
            return clock_ms + _WEEK_MS * 2
        return week_ms + (turns[at] if at < len(turns) else turns[0] + _WEEK_MS)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time start ≤ now < end (ms since 1970) through which clocks are this much ahead of UTC,
    from a Monday at 00:00 on."""

    start_ms: int
    end_ms: int
    offset_ms: int

    def clock_ms(self, now_ms: int) -> int:
        """What the clock shows: ms since a Monday at 00:00."""
        return now_ms + self.offset_ms


@lru_cache(maxsize=2048)
def _stretches(timezone: str, today: int) -> tuple[_Stretch, ...]:
    """How a zone's clocks go from a day before to a week after this day (days since 1970, UTC).

    Thousands of schedules share it. None for a zone that is not known here.
    """
    try:
        zone = ZoneInfo(timezone)
    except UNKNOWN_ZONE:
        return ()
    days = [day * _DAY_MS for day in range(today - 1, today + _AHEAD_DAYS + 1)]
    shifts = [_shift(zone, *around) for around in pairwise(days) if _is_shifted(zone, *around)]
    ends = [*shifts, days[-1]]
    starts = [days[0], *shifts]
    return tuple(_Stretch(*one, _offset_ms(zone, one[0])) for one in zip(starts, ends, strict=True))


def _is_shifted(zone: ZoneInfo, low_ms: int, high_ms: int) -> bool:
    return _offset_ms(zone, low_ms) != _offset_ms(zone, high_ms)


def _shift(zone: ZoneInfo, low_ms: int, high_ms: int) -> int:
    """The moment in between at which the clock is set forward or back."""
    while high_ms - low_ms > 1:
        middle_ms = (low_ms + high_ms) // 2
        if _is_shifted(zone, low_ms, middle_ms):
            high_ms = middle_ms
        else:
            low_ms = middle_ms
    return high_ms


def _offset_ms(zone: ZoneInfo, now_ms: int) -> int:
    """How far the zone's clocks are ahead of ones that show 00:00 when a week of UTC begins."""
    shown = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(zone)
    ahead = shown.utcoffset() or timedelta()
    return ahead // timedelta(milliseconds=1) + _EPOCH.weekday() * _DAY_MS


_timetables: WeakValueDictionary[Schedule, Timetable] = WeakValueDictionary()


def timetable(schedule: Schedule) -> Timetable:
    """The timetable of a schedule: one for all catalogs of this process, as long as one has it."""
    known = _timetables.get(schedule)
    if known is None:
        known = _timetables[schedule] = Timetable(schedule)
    return known


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


def shut(marks: Int64s, schedules: Mapping[int, Timetable], now_ms: int) -> Shut:
    """Which rows may not serve now, and for how long that holds.

    `marks`: int64 [n], which of `schedules` (at least one) is the row's, 0 for none.
    """
    spells = [one.spell(now_ms) for one in schedules.values()]
    is_shut = np.array([False, *(not spell.is_open for spell in spells)])
    return Shut(
        is_shut.take(_codes(marks, schedules)),
        max(spell.start_ms for spell in spells),
        min(spell.end_ms for spell in spells),
    )


_Coded = tuple[Int64s, Mapping[int, Timetable], Int32s]
_coded: deque[_Coded] = deque(maxlen=4)
"""The newest catalogs' codes: most changes of a catalog leave the schedules as they were."""


def _codes(marks: Int64s, schedules: Mapping[int, Timetable]) -> Int32s:
    """The place of each row's schedule among all, from 1 on; 0 for none: int32 [n]."""
    for known_marks, known_schedules, codes in tuple(_coded):
        if known_marks is marks and known_schedules is schedules:
            return codes
    keys = np.array([0, *schedules], np.int64)
    order = np.argsort(keys)
    found = order[np.searchsorted(keys[order], marks)].astype(np.int32)
    _coded.append((marks, schedules, found))
    return found


def _turns(hours: tuple[Hours, ...]) -> tuple[bool, list[int]]:
    """Whether it is open just before a week begins, and when in a week that changes (ms).

    What ends at or before its start goes on into the next day.
    """
    changes: Counter[int] = Counter()
    for one in hours:
        length = (one.end_minute - one.start_minute) % _DAY_MINUTES or _DAY_MINUTES
        for day in map(DAYS.index, one.days):
            start = day * _DAY_MINUTES + one.start_minute
            changes[start] += 1
            changes[start + length] -= 1
    return _wrapped(changes)


def _wrapped(changes: Counter[int]) -> tuple[bool, list[int]]:
    """`changes`: by the minute of the week how many more hours are open from then on."""
    week = len(DAYS) * _DAY_MINUTES
    # Hours that are open when the week ends are so when it begins.
    count = sum(change for minute, change in changes.items() if minute < week)
    within: Counter[int] = Counter()
    for minute, change in changes.items():
        within[minute % week] += change
    week_opens = is_open = count > 0
    turns = []
    for minute in sorted(within):
        count += within[minute]
        if (count > 0) != is_open:
            is_open = not is_open
            turns.append(minute * 60_000)
    return week_opens, turns
