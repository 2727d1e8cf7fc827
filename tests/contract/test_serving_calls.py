"""`/v1/score`, `/v1/decisions` and `/v1/events` over a real catalog and database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio

USER = {"geo": "us", "age": 33}


async def _decide(api: Api, **changes: Any) -> dict[str, Any]:
    answer = await api.call(
        "score", "POST", "/v1/decisions", json={"user": USER, "slots": 3, **changes}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _store(api: Api, *events: tuple[str, str]) -> dict[str, Any]:
    body = {"events": [{"type": kind, "token": token} for kind, token in events]}
    answer = await api.call("ingest", "POST", "/v1/events", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_score_has_a_line_for_each_ad_in_order(api: Api) -> None:
    """Known and unknown ads are answered in the order asked, an unknown one without figures."""
    body = {"user": USER, "ad_ids": [3, 999, 1]}
    answer = (await api.call("score", "POST", "/v1/score", json=body)).json()
    assert [ad["ad_id"] for ad in answer["ads"]] == [3, 999, 1]
    known, unknown = answer["ads"][0], answer["ads"][1]
    assert 0 < known["pctr"] < 1
    assert known["bid_micros"] == 300_000
    assert known["eligible"]
    assert known["ecpm_micros"] == pytest.approx(1000 * known["pctr"] * 300_000, abs=2)
    assert unknown["reason"] == "unknown_ad"
    assert unknown["pctr"] is None
    assert not unknown["eligible"]


async def test_decision_ranks_and_prices(api: Api) -> None:
    """Under the genesis model the highest bids win, each paying what the next one would."""
    answer = await _decide(api)
    assert answer["certified"]
    assert [ad["ad_id"] for ad in answer["ads"]] == [10, 9, 8]
    assert [ad["slot"] for ad in answer["ads"]] == sorted(ad["slot"] for ad in answer["ads"])
    assert answer["ads"][0]["price_micros"] == pytest.approx(900_000, abs=1)
    assert answer["ads"][0]["creative"]["landing_url"] == "https://example.com"


async def test_excluded_ads_and_the_floor_are_kept(api: Api) -> None:
    """No excluded ad is served, nothing below the floor."""
    excluding = await _decide(api, exclude=[10, 9])
    assert [ad["ad_id"] for ad in excluding["ads"]] == [8, 7, 6]
    assert (await _decide(api, floor_micros=2**53 - 1))["ads"] == []


async def test_events_are_accepted_once(api: Api) -> None:
    """A repeated impression is a duplicate; its click is another event."""
    token = (await _decide(api))["ads"][0]["token"]
    assert await _store(api, ("impression", token)) == {
        "accepted": 1,
        "duplicate": 0,
        "rejected": [],
    }
    again = await _store(api, ("impression", token), ("click", token))
    assert (again["accepted"], again["duplicate"]) == (1, 1)


async def test_event_is_stored_with_what_was_decided(api: Api) -> None:
    """The row holds the decision, its ad, its price and the packed features."""
    decision = await _decide(api, placement="home")
    first = decision["ads"][0]
    await _store(api, ("impression", first["token"]))
    async with api.database.begin() as connection:
        row = (await connection.execute(sa.text("SELECT * FROM events"))).one()
    assert str(row.decision_id) == decision["decision_id"]
    assert (row.ad_id, row.price_micros) == (first["ad_id"], first["price_micros"])
    assert row.placement == "home"
    assert row.features


async def test_bad_tokens_are_rejected_one_by_one(api: Api) -> None:
    """Forged and malformed tokens name their position and reason, the good one is stored."""
    token = (await _decide(api))["ads"][0]["token"]
    swapped = "A" if token[40] != "A" else "B"
    forged = token[:40] + swapped + token[41:]
    answer = await _store(api, ("click", forged), ("impression", token), ("click", "é"))
    assert answer["accepted"] == 1
    assert answer["rejected"] == [
        {"index": 0, "reason": "forged"},
        {"index": 2, "reason": "malformed"},
    ]


async def test_unknown_feature_is_named(api: Api) -> None:
    """A feature that the schema does not declare is a 422 with its path."""
    body = {"user": {"colour": "red"}, "slots": 1}
    answer = await api.call("score", "POST", "/v1/decisions", json=body)
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["field"] == "user.colour"
    assert fault["remedy"]


async def test_value_of_the_wrong_kind_is_named(api: Api) -> None:
    """A numeric feature does not take a word."""
    body = {"user": {"age": "old"}, "ad_ids": [1]}
    answer = await api.call("score", "POST", "/v1/score", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "user.age"


async def test_many_decisions_at_once_all_answer(api: Api) -> None:
    """Concurrent requests do not disturb each other."""
    answers = await asyncio.gather(*(_decide(api) for _ in range(50)))
    assert len({answer["decision_id"] for answer in answers}) == 50
