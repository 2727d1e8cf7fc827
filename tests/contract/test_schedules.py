"""Daily schedules over HTTP, in imports and in decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.commands.ads import parse
from app.storage.catalog import Catalog
from models.features import Encoder
from models.types import Hours, Schedule
from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio
_DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def _body(schedule: object) -> dict[str, Any]:
    return {"campaign_id": 1, "bid_micros": 9_000_000, "schedule": schedule}


def _around(now: datetime, ahead: timedelta) -> dict[str, Any]:
    """Every day, from half an hour before `now + ahead` to half an hour after, in UTC."""
    start, end = (now + ahead + timedelta(minutes=by) for by in (-30, 30))
    hours = {"days": _DAYS, "from": f"{start:%H:%M}", "to": f"{end:%H:%M}"}
    return {"timezone": "UTC", "hours": [hours]}


async def test_schedule_is_stored_and_shown(api: Api) -> None:
    """What was given comes back, the days in their order."""
    hours = [{"days": ["fri", "mon"], "from": "08:00", "to": "24:00"}]
    given = {"timezone": "Europe/Berlin", "hours": hours}
    assert (await api.call("admin", "PUT", "/v1/ads/1", json=_body(given))).status_code == 200
    found = (await api.call("admin", "GET", "/v1/ads/1")).json()["schedule"]
    assert found["timezone"] == "Europe/Berlin"
    assert found["hours"] == [{"days": ["mon", "fri"], "from": "08:00", "to": "24:00"}]
    await api.call("admin", "PATCH", "/v1/ads/1", json={"bid_micros": 7})
    assert (await api.call("admin", "GET", "/v1/ads/1")).json()["schedule"] == found


async def test_ad_serves_in_its_hours_only(api: Api) -> None:
    """Out of its hours an ad is in no decision and the reason is `schedule`; in them it is."""
    now = datetime.now(UTC)
    decide = {"user": {}, "slots": 50, "per_advertiser": 50}
    score = {"user": {}, "ad_ids": [1]}
    for ahead, reason in ((timedelta(hours=6), "schedule"), (timedelta(), None)):
        body = _body(_around(now, ahead))
        assert (await api.call("admin", "PUT", "/v1/ads/1", json=body)).status_code == 200
        decided = (await api.call("score", "POST", "/v1/decisions", json=decide)).json()
        scored = (await api.call("score", "POST", "/v1/score", json=score)).json()
        assert (1 in [ad["ad_id"] for ad in decided["ads"]]) == (reason is None)
        assert scored["ads"][0]["reason"] == reason


@pytest.mark.parametrize(
    ("zone", "days", "start", "end", "field"),
    [
        ("Mars/Base", ["mon"], "08:00", "09:00", "timezone"),
        ("../UTC", ["mon"], "08:00", "09:00", "timezone"),
        ("localtime", ["mon"], "08:00", "09:00", "timezone"),
        ("UTC", ["mon"], "08:00", "08:00", "hours[0].to"),
        ("UTC", ["mon"], "24:00", "08:00", "hours[0].from"),
        ("UTC", ["mon"], "8:00", "09:00", "hours[0].from"),
        ("UTC", [], "08:00", "09:00", "hours[0].days"),
    ],
)
async def test_faulty_schedule_is_refused_by_its_field(
    api: Api, zone: str, days: list[str], start: str, end: str, field: str
) -> None:
    """A schedule that means nothing is a 422 that names what to mend."""
    schedule = {"timezone": zone, "hours": [{"days": days, "from": start, "to": end}]}
    answer = await api.call("admin", "PUT", "/v1/ads/1", json=_body(schedule))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"schedule.{field}"


async def test_import_takes_schedules(catalog: Catalog, encoder: Encoder) -> None:
    """A line of NDJSON has the same schedule, and the catalog gives it back to workers."""
    line = (
        b'{"id": 5, "campaign_id": 1, "bid_micros": 5, "schedule": {"timezone": "Asia/Tokyo",'
        b' "hours": [{"days": ["sun"], "from": "22:00", "to": "02:00"}]}}'
    )
    ads = [ad for _, ad in parse([line], encoder).ads.values()]
    wanted = Schedule("Asia/Tokyo", (Hours(("sun",), 1320, 120),))
    assert ads[0].schedule == wanted
    before = await catalog.version()
    await catalog.import_catalog([], [], ads, "test")
    for since in (before, 0):
        found = {ad.id: ad for ad in (await catalog.changes_since(since)).ads}
        assert found[5].schedule == wanted
