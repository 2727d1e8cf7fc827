"""Daily schedules by the clock of a time zone, daylight saving included."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.schedule import HoursBody, ScheduleBody, schedule_of
from app.errors import BodyInvalid
from app.serving.columns import Columns
from app.serving.image import Image
from app.serving.schedules import Timetable, mark, timetable
from models.features import Encoder, parse_schema
from models.types import DAYS, Ad, CatalogChanges, Hours, Schedule

BERLIN = "Europe/Berlin"
ZONES = (BERLIN, "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")
ALL_DAYS = DAYS
SCHEMA = 'version = 1\n[user.geo]\nkind = "categorical"\n[ad.creative]\nkind = "categorical"\n'

minutes = st.integers(0, 24 * 60 - 1)
hours = st.builds(
    Hours,
    st.sets(st.sampled_from(DAYS), min_size=1).map(
        lambda days: tuple(sorted(days, key=DAYS.index))
    ),
    minutes,
    minutes,
).filter(lambda one: one.start_minute != one.end_minute)
schedules = st.builds(
    Schedule, st.sampled_from(ZONES), st.lists(hours, min_size=1, max_size=3).map(tuple)
)
moments = st.datetimes(datetime(2010, 1, 1), datetime(2040, 1, 1)).map(
    lambda found: ms(found.replace(tzinfo=UTC))
)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def at(zone: str, text: str, fold: int = 0) -> int:
    """When the clock of a zone shows this; `fold` 1 for the second time on an autumn night."""
    shown = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return ms(shown)


def is_open(schedule: Schedule, now_ms: int) -> bool:
    return Timetable(schedule).spell(now_ms).is_open


def naive(schedule: Schedule, now_ms: int) -> bool:
    """What the clock shows, looked up in the list of hours."""
    shown = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(schedule.timezone))
    minute, today = shown.hour * 60 + shown.minute, shown.weekday()
    for one in schedule.hours:
        days = {DAYS.index(day) for day in one.days}
        wraps = one.end_minute <= one.start_minute
        if today in days and one.start_minute <= minute and (wraps or minute < one.end_minute):
            return True
        if wraps and (today - 1) % 7 in days and minute < one.end_minute:
            return True
    return False


@given(schedules, moments)
@settings(max_examples=150, deadline=None)
def test_spell_is_what_the_clock_shows_through_and_through(schedule: Schedule, now_ms: int) -> None:
    """A schedule is open exactly when the clock shows one of its hours, for the whole spell."""
    spell = Timetable(schedule).spell(now_ms)
    assert spell.start_ms <= now_ms < spell.end_ms
    length = spell.end_ms - spell.start_ms
    looked = {spell.start_ms, now_ms, spell.end_ms - 1}
    looked |= {spell.start_ms + length * part // 23 for part in range(23)}
    assert {naive(schedule, one) for one in looked} == {spell.is_open}


@given(schedules, moments)
@settings(max_examples=50, deadline=None)
def test_remembered_spell_does_not_matter(schedule: Schedule, now_ms: int) -> None:
    """What was asked before changes no answer."""
    table = Timetable(schedule)
    for ahead in (0, 3_600_000, -86_400_000, 7 * 86_400_000):
        table.spell(now_ms + ahead)
        assert table.spell(now_ms).is_open == naive(schedule, now_ms)


def test_hours_follow_daylight_saving() -> None:
    """08:00 in Berlin is 07:00 UTC in winter and 06:00 UTC in summer."""
    morning = Schedule(BERLIN, (Hours(ALL_DAYS, 8 * 60, 9 * 60),))
    winter, summer = (datetime(2026, month, 15, 6, 30, tzinfo=UTC) for month in (1, 7))
    assert not is_open(morning, ms(winter))
    assert is_open(morning, ms(winter + timedelta(hours=1)))
    assert is_open(morning, ms(summer))
    assert not is_open(morning, ms(summer + timedelta(hours=1)))


def test_hour_that_spring_leaves_out_is_no_time_at_all() -> None:
    """On 29 March 2026 Berlin's clocks go from 02:00 to 03:00: 02:00 to 02:59 never comes."""
    night = Schedule(BERLIN, (Hours(ALL_DAYS, 120, 180),))
    around = range(at(BERLIN, "2026-03-29T00:30"), at(BERLIN, "2026-03-29T06:00"), 60_000)
    assert not any(is_open(night, now_ms) for now_ms in around)
    assert is_open(night, at(BERLIN, "2026-03-30T02:30"))


def test_spell_ends_where_the_clock_jumps_over_its_end() -> None:
    """Open from 01:00 to 02:30: on the night of the jump it shuts when the clock leaves 01:59."""
    night = Schedule(BERLIN, (Hours(ALL_DAYS, 60, 150),))
    spell = Timetable(night).spell(at(BERLIN, "2026-03-29T01:30"))
    assert (spell.is_open, spell.end_ms) == (True, at(BERLIN, "2026-03-29T03:00"))


def test_hour_that_autumn_repeats_counts_twice() -> None:
    """On 25 October 2026 Berlin's clocks show 02:00 to 02:59 twice: open both times."""
    night = Schedule(BERLIN, (Hours(ALL_DAYS, 120, 180),))
    first, second = (at(BERLIN, "2026-10-25T02:30", fold) for fold in (0, 1))
    assert second - first == 3_600_000
    assert is_open(night, first)
    assert is_open(night, second)
    spell = Timetable(night).spell(first)
    assert spell.end_ms in (first + 1_800_000, first + 5_400_000)


def test_late_hours_go_on_after_midnight() -> None:
    """Friday 22:00 to 02:00 is open on Saturday at one, and not on Friday at one."""
    late = Schedule(BERLIN, (Hours(("fri",), 22 * 60, 2 * 60),))
    assert is_open(late, at(BERLIN, "2026-11-27T23:00"))
    assert is_open(late, at(BERLIN, "2026-11-28T01:00"))
    assert not is_open(late, at(BERLIN, "2026-11-27T01:00"))
    assert not is_open(late, at(BERLIN, "2026-11-28T02:00"))


@pytest.fixture
def columns() -> Columns:
    """Ad 1 always, ad 2 from 08:00 to 22:00 in Berlin, ad 3 so from noon in New York, paused."""
    return Image.of(_changes(), Encoder(parse_schema(SCHEMA))).columns


def _changes() -> CatalogChanges:
    by_day = Schedule(BERLIN, (Hours(ALL_DAYS, 480, 1320),))
    noon = Schedule("America/New_York", (Hours(ALL_DAYS, 720, 1440),))
    ads = (
        Ad(1, 1, 1, 10),
        Ad(2, 1, 1, 10, schedule=by_day),
        Ad(3, 1, 1, 10, schedule=noon, state="paused"),
    )
    return CatalogChanges(1, ads=ads)


def test_schedule_decides_who_may_serve(columns: Columns) -> None:
    """An ad outside of its hours is not eligible, the reason says why; causes before it stay."""
    eligibility = columns.eligibility()
    rows = np.arange(3)
    by_night, by_day = at(BERLIN, "2026-11-22T07:59"), at(BERLIN, "2026-11-22T08:00")
    assert eligibility.reasons_of({}, rows, by_night) == [None, "schedule", "paused"]
    assert eligibility.reasons_of({}, rows, by_day) == [None, None, "paused"]
    assert eligibility.reasons_of({}, rows, by_night) == [None, "schedule", "paused"]


def test_image_of_the_catalog_holds_schedules(columns: Columns, tmp_path: Path) -> None:
    """A worker that maps the image keeps the same hours."""
    Image(1, columns, ()).write(tmp_path)
    read = Image.read(tmp_path).columns
    assert read.schedules == columns.schedules
    night = at(BERLIN, "2026-11-22T03:00")
    found = read.eligibility().reasons_of({}, np.arange(3), night)
    assert found == [None, "schedule", "paused"]


def test_changed_schedule_holds(columns: Columns) -> None:
    """A schedule that is taken away, or given, changes who may serve."""
    encoder = Encoder(parse_schema(SCHEMA))
    always, hourly = Ad(2, 1, 1, 10), Schedule("UTC", (Hours(ALL_DAYS, 0, 60),))
    changed = columns.with_ads(
        [always, Ad(1, 1, 1, 10, schedule=hourly)], np.array([1, 0]), encoder
    )
    noon = ms(datetime(2026, 11, 22, 12, tzinfo=UTC))
    found = changed.eligibility().reasons_of({}, np.arange(2), noon)
    assert found == ["schedule", None]


def test_marks_tell_schedules_apart() -> None:
    """Equal schedules have one mark, others another; no schedule has 0."""
    one, same = (Schedule("UTC", (Hours(("mon",), 0, 60),)) for _ in range(2))
    assert mark(one) == mark(same) != mark(Schedule("UTC", (Hours(("tue",), 0, 60),)))
    assert mark(None) == 0


def _minute_of_the_week(number: int) -> Schedule:
    """One of thousands of schedules."""
    start = number % 1400
    return Schedule(BERLIN, (Hours((DAYS[number // 1400],), start, start + 5),))


def test_schedules_beyond_any_limit_keep_their_timetables() -> None:
    """Of five thousand schedules none is computed again while its spell lasts."""
    ads = [Ad(key + 1, 1, 1, 10, schedule=_minute_of_the_week(key)) for key in range(5000)]
    encoder = Encoder(parse_schema(SCHEMA))
    columns = Columns.empty().with_ads(ads, np.arange(len(ads)), encoder)
    now_ms = at(BERLIN, "2026-11-22T03:00")
    spells = [of.spell(now_ms) for of in columns.schedules.values()]
    columns.eligibility().mask({}, now_ms)
    assert len(spells) == 5000
    again = (timetable(ad.schedule).spell(now_ms) for ad in ads if ad.schedule)
    assert all(one is other for one, other in zip(spells, again, strict=True))


def test_timetable_goes_with_the_last_catalog_that_has_it() -> None:
    """Schedules that no catalog has any more take no memory."""
    rare = Schedule("UTC", (Hours(("sun",), 17, 23),))
    held = timetable(rare)
    assert timetable(rare) is held
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None


def test_schedules_without_a_row_are_dropped(columns: Columns) -> None:
    """An ad that is edited often does not fill the catalog with what it was."""
    encoder, edited = Encoder(parse_schema(SCHEMA)), columns
    for number in range(1000):
        ad = Ad(2, 1, 1, 10, schedule=_minute_of_the_week(number))
        edited = edited.with_ads([ad], np.array([1]), encoder)
        assert mark(ad.schedule) in edited.schedules
        assert len(edited.schedules) <= 64 + 2
    moved = edited.moved(3, np.array([2, 1, 0]), np.array([3, 2, 1]))
    assert moved.schedules.keys() == set(moved.schedule_marks.tolist()) - {0}
    assert moved.moved(1, np.array([-1, -1, 0]), np.array([1])).schedules == {}


def test_ad_of_an_unknown_time_zone_is_shut_and_nothing_else(tmp_path: Path) -> None:
    """On a host with an older database of zones the other ads go on, from the image too."""
    nowhere = Schedule("Mars/Base", (Hours(ALL_DAYS, 0, 1440),))
    known = _changes()
    changes = replace(known, ads=(*known.ads, Ad(4, 1, 1, 10, schedule=nowhere)))
    Image.of(changes, Encoder(parse_schema(SCHEMA))).write(tmp_path)
    eligibility = Image.read(tmp_path).columns.eligibility()
    noon = at(BERLIN, "2026-11-22T12:00")
    for now_ms in (noon, noon + 86_400_000):
        found = eligibility.reasons_of({}, np.arange(4), now_ms)
        assert found == [None, None, "paused", "schedule"]


@pytest.mark.parametrize(
    "zone", ["localtime", "LocalTime", "posixrules", "posix/localtime", "posix/UTC", "right/UTC"]
)
def test_time_zone_that_depends_on_the_host_is_refused(zone: str) -> None:
    """What each host takes for something else is no time zone for a catalog."""
    body = ScheduleBody(timezone=zone, hours=[HoursBody(days=["mon"], start="08:00", end="09:00")])
    with pytest.raises(BodyInvalid):
        schedule_of(body)


def test_whole_week_is_open_without_an_edge() -> None:
    """Hours that meet are one spell, over midnight and from Sunday into Monday."""
    always = Schedule("UTC", (Hours(ALL_DAYS, 0, 1440),))
    noon = ms(datetime(2026, 11, 22, 12, tzinfo=UTC))
    spell = Timetable(always).spell(noon)
    assert spell.is_open
    assert spell.end_ms - noon > 7 * 86_400_000
