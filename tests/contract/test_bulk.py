"""`POST /v1/ads:bulk`: many changes, one version, faults item by item."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio


async def test_bulk_changes_hold_once_answered(api: Api) -> None:
    """Ads that a bulk call paused are in no decision after its answer; the others are."""
    changes = [{"id": number, "state": "paused"} for number in (1, 2, 10)]
    answer = await api.call("admin", "POST", "/v1/ads:bulk", json={"changes": changes})
    assert answer.status_code == 200
    assert (answer.json()["changed"], answer.json()["refused"]) == (3, [])
    body = {"user": {}, "slots": 50, "per_advertiser": 50}
    decided = (await api.call("score", "POST", "/v1/decisions", json=body)).json()
    assert {ad["ad_id"] for ad in decided["ads"]} == {3, 4, 5, 6, 7, 8, 9}


async def test_bulk_is_one_version(api: Api) -> None:
    """All changes of a call have one version of the catalog, the next after the one before."""
    before = (await api.call("admin", "GET", "/v1/ads/1")).json()["version"]
    changes = [{"id": 1, "bid_micros": 5}, {"id": 2, "bid_micros": 6, "state": "paused"}]
    answer = await api.call("admin", "POST", "/v1/ads:bulk", json={"changes": changes})
    found = [(await api.call("admin", "GET", f"/v1/ads/{number}")).json() for number in (1, 2)]
    assert (
        [ad["version"] for ad in found]
        == [answer.json()["catalog_version"]] * 2
        == [before + 1] * 2
    )
    assert [(ad["bid_micros"], ad["state"]) for ad in found] == [(5, "active"), (6, "paused")]


async def test_bulk_refuses_items_by_themselves(api: Api) -> None:
    """Unknown, retired and empty items are refused by position; the rest is made."""
    await api.call("admin", "PATCH", "/v1/ads/9", json={"state": "retired"})
    changes = [
        {"id": 77, "state": "paused"},
        {"id": 1, "state": "paused"},
        {"id": 9, "state": "active"},
        {"id": 2},
    ]
    answer = (await api.call("admin", "POST", "/v1/ads:bulk", json={"changes": changes})).json()
    assert answer["changed"] == 1
    reasons = [(one["index"], one["reason"]) for one in answer["refused"]]
    assert reasons == [(0, "not_found"), (2, "conflict"), (3, "empty")]
    assert (await api.call("admin", "GET", "/v1/ads/1")).json()["bid_micros"] == 100_000


async def test_bulk_that_changes_nothing_makes_no_version(api: Api) -> None:
    """Where every item is refused the catalog keeps its version, and nobody is waited for."""
    before = await api.app.state.services.catalog.version()
    changes = {"changes": [{"id": 77, "state": "paused"}]}
    answer = (await api.call("admin", "POST", "/v1/ads:bulk", json=changes)).json()
    assert answer["catalog_version"] is None
    assert await api.app.state.services.catalog.version() == before


async def test_bulk_that_names_an_ad_twice_is_refused(api: Api) -> None:
    """Nobody can tell which of the two is meant: 422 names the second place, nothing is made."""
    changes = [{"id": 3}, {"id": 1, "state": "paused"}, {"id": 1, "bid_micros": 3}]
    answer = await api.call("admin", "POST", "/v1/ads:bulk", json={"changes": changes})
    assert answer.status_code == 422
    assert "changes[2].id" in answer.json()["detail"]
    ad = (await api.call("admin", "GET", "/v1/ads/1")).json()
    assert (ad["state"], ad["bid_micros"]) == ("active", 100_000)
