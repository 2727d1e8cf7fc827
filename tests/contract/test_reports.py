"""The performance report: groups, filters, pages, JSON and CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.ids import uuid7
from app.storage import counting, partitions
from app.storage.events import EventWriter
from models.types import Event, EventType
from tests.contract.conftest import Api, now_ms

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
SNAPSHOTS = [UUID(int=n) for n in (1, 2)]
PATH = "/v1/reports/performance"


def _event(type_: EventType, ad_id: int, hours_ago: int, **given: Any) -> Event:
    decided_ms = now_ms() - hours_ago * HOUR_MS
    made = Event(
        type=type_,
        decided_ms=decided_ms,
        decision_id=uuid7(decided_ms),
        slot=0,
        ad_id=ad_id,
        snapshot_id=SNAPSHOTS[ad_id % 2],
        catalog_version=1,
        price_micros=ad_id * 1000,
        propensity=1.0,
        placement="home" if ad_id < 5 else "",
        features=b"",
    )
    return msgspec.structs.replace(made, **given)


@pytest.fixture
async def counted(api: Api) -> Api:
    """Ads 1 to 10, ad n with n impressions an hour for three hours, each first one clicked; one
    impression of an ad that the catalog does not know."""
    await partitions.ensure_partitions(api.database, now_ms())
    writer = EventWriter(api.database)
    shown = [
        _event("impression", ad_id, hours)
        for hours in range(3)
        for ad_id in range(1, 11)
        for _ in range(ad_id)
    ]
    firsts = {(one.ad_id, one.decided_ms // HOUR_MS): one for one in shown}
    clicks = [msgspec.structs.replace(one, type="click") for one in firsts.values()]
    sold = [
        msgspec.structs.replace(one, type="conversion", value_micros=5) for one in firsts.values()
    ]
    await writer.write([*shown, *clicks, *sold, _event("impression", 77, 0)])
    await writer.close()
    await counting.count(api.database)
    return api


async def _items(api: Api, **given: Any) -> list[dict[str, Any]]:
    answer = await api.call("admin", "GET", PATH, params=given)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_totals_of_a_day(counted: Api) -> None:
    """Without groups there is one row of everything, and the figures fit together."""
    [row] = await _items(counted)
    assert row == {
        "impressions": 166,
        "clicks": 30,
        "ctr": 30 / 166,
        "conversions": 30,
        "conversion_value_micros": 150,
        "closes": 0,
        "spend_micros": 165_000,
        "ecpm_micros": round(1000 * 165_000 / 166),
    }


async def test_nothing_is_a_row_of_nothing(api: Api) -> None:
    """A rate of no impressions is null, not a division by zero."""
    [row] = await _items(api)
    assert (row["impressions"], row["ctr"], row["ecpm_micros"]) == (0, None, None)
    assert await _items(api, group_by="ad") == []


@pytest.mark.parametrize(
    ("group", "key", "expected"),
    [
        ("ad", "ad_id", {**{n: 3 * n for n in range(1, 11)}, 77: 1}),
        ("campaign", "campaign_id", {1: 135, 2: 30, None: 1}),
        ("advertiser", "advertiser_id", {1: 165, None: 1}),
        ("placement", "placement", {"home": 30, "": 136}),
        ("snapshot", "snapshot_id", {str(SNAPSHOTS[0]): 90, str(SNAPSHOTS[1]): 76}),
    ],
)
async def test_groups(counted: Api, group: str, key: str, expected: dict[Any, int]) -> None:
    """One row for each value; what the catalog does not know is a group of its own."""
    items = await _items(counted, group_by=group)
    assert {item[key]: item["impressions"] for item in items} == expected


async def test_hours_and_days(counted: Api) -> None:
    """Times are the starts of hours and UTC days, in order."""
    hours = await _items(counted, group_by="hour")
    assert [item["impressions"] for item in hours] == [55, 55, 56]
    assert all(item["hour"].endswith(":00:00Z") for item in hours)
    days = await _items(counted, group_by="day")
    assert sum(item["impressions"] for item in days) == 166
    assert all(item["day"].endswith("T00:00:00Z") for item in days)


async def test_groups_by_commas_or_repeated(counted: Api) -> None:
    """Both ways to name two groups mean the same."""
    by_comma = await _items(counted, group_by="campaign,hour")
    assert by_comma == await _items(counted, group_by=["campaign", "hour"])
    assert len(by_comma) == 7


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ad_id": [1, 2]}, 9),
        ({"campaign_id": 2}, 30),
        ({"advertiser_id": 1}, 165),
        ({"advertiser_id": 2}, 0),
        ({"placement": ""}, 136),
        ({"snapshot_id": str(SNAPSHOTS[1]), "ad_id": [1, 2, 3]}, 12),
    ],
)
async def test_filters(counted: Api, given: dict[str, Any], expected: int) -> None:
    """Filters of several kinds hold together, values of one kind are alternatives."""
    [row] = await _items(counted, **given)
    assert row["impressions"] == expected


async def test_range_is_half_open(counted: Api) -> None:
    """`since` is included, `until` is not."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since, until = (one.isoformat() for one in (hour - timedelta(hours=2), hour))
    assert (await _items(counted, since=since, until=until))[0]["impressions"] == 110
    assert (await _items(counted, since=until))[0]["impressions"] == 56


async def test_pages_hold_every_row_once(counted: Api) -> None:
    """Following the cursor gives what one page gives."""
    given: dict[str, Any] = {"group_by": "placement,campaign,hour,snapshot,ad,day,advertiser"}
    whole, found, cursor = await _items(counted, **given), [], ""
    while cursor is not None:
        params = {**given, "limit": 4, **({"cursor": cursor} if cursor else {})}
        answer = (await counted.call("admin", "GET", PATH, params=params)).json()
        found += answer["items"]
        cursor = answer["next_cursor"]
    assert (found, len(whole)) == (whole, 31)


async def test_ranking(counted: Api) -> None:
    """The largest come first, and there is no second page."""
    params: dict[str, Any] = {"group_by": "ad", "order_by": "spend_micros", "limit": 2}
    answer = (await counted.call("admin", "GET", PATH, params=params)).json()
    assert [item["ad_id"] for item in answer["items"]] == [10, 9]
    assert answer["next_cursor"] is None


async def test_csv_has_what_json_has(counted: Api) -> None:
    """By format or by Accept; the next page is in a header."""
    given: dict[str, Any] = {"group_by": "hour,campaign", "limit": 4}
    items = await _items(counted, **given)
    by_accept = {"params": given, "headers": {"Accept": "text/csv"}}
    for call in ({"params": {**given, "format": "csv"}}, by_accept):
        answer = await counted.call("admin", "GET", PATH, **call)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["x-adscent-complete-until"].endswith("Z")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        shown = [{k: "" if v is None else str(v) for k, v in item.items()} for item in items]
        assert [{**row} for row in rows] == [{name: one[name] for name in rows[0]} for one in shown]
    following = answer.headers["link"].removeprefix("<").partition(">")[0]
    rest = await counted.call("admin", "GET", following)
    assert len(list(csv.DictReader(io.StringIO(rest.text)))) == 3


async def test_complete_until_is_told(counted: Api) -> None:
    """What was acknowledged before it is counted; it is not in the future."""
    answer = (await counted.call("admin", "GET", PATH)).json()
    until = datetime.fromisoformat(answer["complete_until"])
    assert timedelta() <= datetime.now(UTC) - until < timedelta(seconds=60)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"since": "2026-11-22T10:30:00Z"}, "query.since"),
        ({"until": "2026-11-22T10:00:00"}, "query.until"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "query.until"),
        ({"since": "2026-11-23T00:00:00Z", "until": "2026-11-22T00:00:00Z"}, "query.since"),
        ({"cursor": "WyJhIl0"}, "query.cursor"),
        ({"cursor": "WyJhIl0", "group_by": "ad"}, "query.cursor"),
        ({"cursor": "WyIxIl0", "group_by": "ad", "order_by": "clicks"}, "query.cursor"),
        ({"group_by": "ad,colour"}, "query.group_by.1"),
        ({"ad_id": 0}, "query.ad_id.0"),
        ({"colour": "red"}, "query.colour"),
    ],
)
async def test_what_cannot_be_asked(api: Api, given: dict[str, Any], field: str) -> None:
    """The fault names the parameter and the remedy."""
    answer = await api.call("admin", "GET", PATH, params=given)
    [fault] = answer.json()["errors"]
    assert (answer.status_code, fault["field"]) == (422, field)
    assert fault["remedy"]


async def test_reports_are_for_administrators(api: Api) -> None:
    """Neither a page's key nor the sender of events reads what others earn."""
    for scope in ("score", "ingest"):
        assert (await api.call(scope, "GET", PATH)).status_code == 403
