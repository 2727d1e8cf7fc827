"""Ads, campaigns and advertisers: stored, listed, and obeyed on the next request."""

from __future__ import annotations

from typing import Any

import pytest

from app.ids import uuid7
from app.storage import workers
from tests.contract.conftest import Api, now_ms

pytestmark = pytest.mark.anyio

AD = {
    "campaign_id": 1,
    "bid_type": "cpm",
    "bid_micros": 5_000_000,
    "features": {"category": ["shoes", "running"]},
    "targeting": {"all": [{"user.geo": ["us", "ca"]}], "none": [{"user.age": {"max": 17.0}}]},
    "flight": {"start": "2020-01-01T00:00:00Z"},
    "creative": {"title": "Run"},
}


async def _served(api: Api, **user: object) -> list[int]:
    body = {"user": {"geo": "us", "age": 33, **user}, "slots": 50, "per_advertiser": 50}
    answer = await api.call("score", "POST", "/v1/decisions", json=body)
    return [ad["ad_id"] for ad in answer.json()["ads"]]


async def _change(api: Api, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await api.call("admin", method, path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["acknowledged"]
    assert found["pending"] == []
    return found


async def test_new_ad_is_served_after_the_answer(api: Api) -> None:
    """Once a PUT has answered 200, decisions know the ad and keep its targeting."""
    change = await _change(api, "PUT", "/v1/ads/77", AD)
    assert change["ad"]["advertiser_id"] == 1
    assert change["ad"]["targeting"] == AD["targeting"]
    assert 77 in await _served(api)
    assert 77 not in await _served(api, geo="de")
    assert 77 not in await _served(api, age=16)


@pytest.mark.parametrize("path", ["/v1/ads/10", "/v1/campaigns/2"])
async def test_pause_holds_on_the_next_request(api: Api, path: str) -> None:
    """A paused ad, or an ad of a paused campaign, is not served until it is active again."""
    assert 10 in await _served(api)
    await _change(api, "PATCH", path, {"state": "paused"})
    assert 10 not in await _served(api)
    await _change(api, "PATCH", path, {"state": "active"})
    assert 10 in await _served(api)


async def test_paused_advertiser_pauses_its_ads(api: Api) -> None:
    """Nothing of a paused advertiser is served; the score says why."""
    await _change(api, "PATCH", "/v1/advertisers/1", {"state": "paused"})
    assert await _served(api) == []
    body = {"user": {}, "ad_ids": [1]}
    [ad] = (await api.call("score", "POST", "/v1/score", json=body)).json()["ads"]
    assert ad["reason"] == "advertiser_paused"


async def test_retired_is_final(api: Api) -> None:
    """A retired ad cannot come back."""
    await _change(api, "PATCH", "/v1/ads/1", {"state": "retired"})
    answer = await api.call("admin", "PATCH", "/v1/ads/1", json={"state": "active"})
    assert answer.status_code == 409
    assert 1 not in await _served(api)


async def test_bid_change_reorders_at_once(api: Api) -> None:
    """A raised bid wins the next auction."""
    await _change(api, "PATCH", "/v1/ads/1", {"bid_micros": 9_000_000})
    assert (await _served(api))[0] == 1


async def test_lists_are_filtered_and_paged(api: Api) -> None:
    """Following next_cursor visits every ad once, in order."""
    seen: list[int] = []
    query = {"limit": "4", "campaign_id": "1"}
    while True:
        page = (await api.call("admin", "GET", "/v1/ads", params=query)).json()
        seen += [ad["id"] for ad in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == list(range(1, 10))
    await _change(api, "PATCH", "/v1/ads/5", {"state": "paused"})
    paused = (await api.call("admin", "GET", "/v1/ads?state=paused")).json()
    assert [ad["id"] for ad in paused["items"]] == [5]
    owned = (await api.call("admin", "GET", "/v1/ads?advertiser_id=2")).json()
    assert owned == {"items": [], "next_cursor": None}


async def test_campaigns_and_advertisers_are_stored_and_read(api: Api) -> None:
    """A new advertiser with a new campaign can be read and listed."""
    await _change(api, "PUT", "/v1/advertisers/5", {"name": "Books"})
    change = await _change(api, "PUT", "/v1/campaigns/9", {"advertiser_id": 5, "name": "Spring"})
    assert change["campaign"]["name"] == "Spring"
    read = (await api.call("admin", "GET", "/v1/campaigns/9")).json()
    assert read == change["campaign"]
    listed = (await api.call("admin", "GET", "/v1/campaigns?advertiser_id=5")).json()
    assert listed["items"] == [read]
    names = (await api.call("admin", "GET", "/v1/advertisers")).json()["items"]
    assert [item["name"] for item in names] == ["Shoes Ltd", "Books"]


async def test_worker_that_cannot_be_reached_is_pending(api: Api) -> None:
    """202 names the worker of another host that has not applied the change in time."""
    other = uuid7(now_ms())
    await workers.register(api.database, other, "elsewhere", 1)
    await workers.beat(api.database, other, 1, other)
    answer = await api.call("admin", "PATCH", "/v1/ads/1", json={"state": "paused"})
    assert answer.status_code == 202
    assert answer.json()["pending"] == [str(other)]


async def test_worker_that_serves_nothing_yet_is_not_waited_for(api: Api) -> None:
    """A worker that has only just started cannot serve what a change forbids."""
    await workers.register(api.database, uuid7(now_ms()), "elsewhere", 1)
    await _change(api, "PATCH", "/v1/ads/1", {"state": "paused"})


async def test_worker_whose_process_is_gone_is_not_waited_for(api: Api) -> None:
    """A row left behind by a killed process of this host is removed."""
    gone = uuid7(now_ms())
    await workers.register(api.database, gone, workers.this_host(), 2**22 + 1)
    await workers.beat(api.database, gone, 1, gone)
    await _change(api, "PATCH", "/v1/ads/1", {"state": "paused"})
