"""Daily schedules by the clock of a time zone, daylight saving included."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.serving.columns import Columns
from app.serving.image import Image
from app.serving.schedules import Timetable, mark
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
