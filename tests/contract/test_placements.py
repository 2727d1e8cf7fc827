"""`/v1/placements`: floors and house ads, obeyed on the next request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio

HIGH = 2**53 - 1


async def _put(api: Api, name: str, **body: Any) -> dict[str, Any]:
    answer = await api.call("admin", "PUT", f"/v1/placements/{name}", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["acknowledged"]
    return found


async def _decide(api: Api, **changes: Any) -> dict[str, Any]:
    body = {"user": {"geo": "us"}, "slots": 2, "placement": "home", "per_advertiser": 50, **changes}
    answer = await api.call("score", "POST", "/v1/decisions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_placement_comes_back_as_it_was_put(api: Api) -> None:
    """PUT, GET and the list agree, slashes in the name included; house ads are listed once."""
    put = await _put(api, "shop/home", floor_micros=7, house_ads=[3, 1, 3])
    expected = {"name": "shop/home", "floor_micros": 7, "house_ads": [3, 1]}
    assert put["placement"] == expected | {"version": put["catalog_version"]}
    await _put(api, "feed")
    got = await api.call("admin", "GET", "/v1/placements/shop/home")
    assert got.json() == put["placement"]
    first = (await api.call("admin", "GET", "/v1/placements?limit=1")).json()
    assert [item["name"] for item in first["items"]] == ["feed"]
    rest = await api.call("admin", "GET", f"/v1/placements?cursor={first['next_cursor']}")
    assert rest.json()["items"] == [put["placement"]]


async def test_the_higher_floor_counts(api: Api) -> None:
    """A placement's floor keeps ads out and prices there, and nowhere else."""
    usual = (await _decide(api))["ads"]
    floor = usual[0]["ecpm_micros"]
    await _put(api, "home", floor_micros=floor)
    [only] = (await _decide(api, floor_micros=1))["ads"]
    assert only["ad_id"] == usual[0]["ad_id"]
    assert 1000 * only["pctr"] * only["price_micros"] >= floor
    assert len((await _decide(api, placement="feed"))["ads"]) == 2
    assert (await _decide(api, floor_micros=HIGH))["ads"] == []
    await _put(api, "home")
    assert (await _decide(api))["ads"][0]["price_micros"] == usual[0]["price_micros"]


async def test_house_ads_fill_what_nobody_buys(api: Api) -> None:
    """They come free, marked, in their order, as far as they may serve; their events are taken."""
    await _put(api, "home", floor_micros=HIGH, house_ads=[10, 3, 5])
    await api.call("admin", "PATCH", "/v1/ads/10", json={"state": "paused"})
    answer = await _decide(api, slots=5)
    assert [ad["ad_id"] for ad in answer["ads"]] == [3, 5]
    assert [ad["slot"] for ad in answer["ads"]] == [0, 1]
    assert all(ad["house"] and ad["price_micros"] == 0 for ad in answer["ads"])
    assert "no_fill" not in answer
    events = [{"type": "impression", "token": ad["token"]} for ad in answer["ads"]]
    stored = await api.call("ingest", "POST", "/v1/events", json={"events": events})
    assert stored.json()["accepted"] == 2
    assert [ad["ad_id"] for ad in (await _decide(api, exclude=[3]))["ads"]] == [5]


async def test_a_house_ad_does_not_compete_at_home(api: Api) -> None:
    """The dearest ad, made a house ad, wins elsewhere but not at its placement."""
    assert [ad["ad_id"] for ad in (await _decide(api))["ads"]] == [10, 9]
    await _put(api, "home", house_ads=[10])
    at_home = (await _decide(api))["ads"]
    assert [ad["ad_id"] for ad in at_home] == [9, 8]
    assert not any("house" in ad for ad in at_home)
    assert (await _decide(api, placement="feed"))["ads"][0]["ad_id"] == 10


async def test_an_unknown_house_ad_is_named(api: Api) -> None:
    """A placement cannot be given an ad that the catalog lacks."""
    answer = await api.call("admin", "PUT", "/v1/placements/home", json={"house_ads": [1, 999]})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert (fault["field"], fault["value"]) == ("house_ads", 999)


async def test_unknown_placements_and_bad_names_are_refused(api: Api) -> None:
    """What there is not is 404, what cannot be a name is 422."""
    assert (await api.call("admin", "GET", "/v1/placements/nowhere")).status_code == 404
    for name in ("x" * 33, "a%20b"):
        assert (
            await api.call("admin", "PUT", f"/v1/placements/{name}", json={})
        ).status_code == 422


async def test_every_change_is_audited(api: Api) -> None:
    """Who set which floor can be read later."""
    from app.storage.audit import list_audit

    await _put(api, "home", floor_micros=5)
    entry = (await list_audit(api.database, 1))[0]
    assert (entry.action, entry.subject) == ("put", "placement:home")
