"""The daily schedule of an ad, between its document and the catalog's row."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from app.api.body import refuse
from app.serving.schedules import UNKNOWN_ZONE
from models.types import DAYS, Hours, Schedule

_OF_THE_HOST = {"localtime", "posixrules"}
_TREES_OF_SOME = {"posix", "right"}
"""Names that another host resolves otherwise, or not at all: its own time, copies of the database
with and without leap seconds."""

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Clock = Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]


class HoursBody(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"start": "from", "end": "to"},
):
    """A part of each of some days, by the clock: `from` inclusive, `to` exclusive.

    A `to` at or before `from` is on the next day; "24:00" is midnight at the end of the day.
    """

    days: Annotated[list[Day], Meta(min_length=1, max_length=7)]
    start: Clock
    end: Clock


class ScheduleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The hours in which the ad may serve, by the clock of an IANA time zone."""

    timezone: Annotated[str, Meta(min_length=1, max_length=64)]
    hours: Annotated[list[HoursBody], Meta(min_length=1, max_length=32)]


def schedule_of(body: ScheduleBody | None) -> Schedule | None:
    """The schedule of a document; None for none. Raises `BodyInvalid`."""
    if body is None:
        return None
    if not _is_zone(body.timezone):
        limit = "a time zone of the IANA database, such as Europe/Berlin"
        remedy = "Correct the name; if it is right, install the system's package tzdata."
        raise refuse("schedule.timezone", body.timezone, limit, remedy)
    hours = tuple(_hours_of(f"schedule.hours[{at}]", one) for at, one in enumerate(body.hours))
    return Schedule(body.timezone, hours)


def schedule_body(schedule: Schedule | None) -> ScheduleBody | None:
    """The document of a schedule."""
    if schedule is None:
        return None
    hours = [
        HoursBody(
            days=[day for day in DAYS if day in one.days],  # type: ignore[misc]  # they are days
            start=_clock(one.start_minute),
            end=_clock(one.end_minute),
        )
        for one in schedule.hours
    ]
    return ScheduleBody(timezone=schedule.timezone, hours=hours)


def _hours_of(place: str, body: HoursBody) -> Hours:
    start, end = _minute(body.start), _minute(body.end)
    if body.start == "24:00":
        raise refuse(f"{place}.from", body.start, "a time before 24:00", 'Say "00:00".')
    if start == end:
        remedy = 'For the whole day say "00:00" to "24:00".'
        raise refuse(f"{place}.to", body.end, "it must differ from `from`", remedy)
    return Hours(tuple(day for day in DAYS if day in body.days), start, end)


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@lru_cache(maxsize=1024)  # names are the caller's to make up
def _is_zone(name: str) -> bool:
    parts = name.lower().replace("\\", "/").split("/")
    if parts[0] in _TREES_OF_SOME or _OF_THE_HOST.intersection(parts):
        return False
    try:
        ZoneInfo(name)
    except UNKNOWN_ZONE:
        return False
    return True
