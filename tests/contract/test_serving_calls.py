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
        "score",
        "POST",
        "/v1/decisions",
        json={"user": USER, "slots": 3, "per_advertiser": 50, **changes},
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


async def _batch(api: Api, **given: Any) -> Any:
    return await api.call("score", "POST", "/v1/score:batch", json=given)


async def test_batch_gives_the_figures_of_single_scores(api: Api) -> None:
    """Each user's lists are in the order of its own candidates, else of the shared ones."""
    users = [{"user": USER}, {"user": {"geo": "ca"}, "ad_ids": [2]}, {"user": {}}]
    answer = await _batch(api, users=users, ad_ids=[3, 999, 1])
    assert answer.status_code == 200, answer.text
    for one, found in zip(users, answer.json()["users"], strict=True):
        body = {"user": one["user"], "ad_ids": one.get("ad_ids", [3, 999, 1])}
        ads = (await api.call("score", "POST", "/v1/score", json=body)).json()["ads"]
        assert found["pctr"] == [ad["pctr"] for ad in ads]
        assert found["ecpm_micros"] == [ad["ecpm_micros"] for ad in ads]
        assert found["reasons"] == [ad["reason"] for ad in ads]


async def test_batch_is_bounded_in_pairs(api: Api) -> None:
    """More than 10,000 pairs are refused, and so is a user without any ad."""
    users = [{"user": {}} for _ in range(11)]
    too_many = await _batch(api, users=users, ad_ids=list(range(1, 1001)))
    assert too_many.json()["errors"][0]["value"] == 11_000
    none = await _batch(api, users=[{"user": {}, "ad_ids": [1]}, {"user": {}}])
    assert none.json()["errors"][0]["field"] == "users[1].ad_ids"
    assert (too_many.status_code, none.status_code) == (422, 422)


@pytest.mark.parametrize("given", ["0", "60001", "-1", "soon", "1.5"])
async def test_a_wrong_deadline_is_named(api: Api, given: str) -> None:
    """A deadline that is not a whole number of milliseconds within bounds is the caller's fault."""
    body = {"user": USER, "ad_ids": [1]}
    client = api.client("score")
    answer = await client.post("/v1/score", json=body, headers={"X-Deadline-Ms": given})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "X-Deadline-Ms"


async def test_decision_ranks_and_prices(api: Api) -> None:
    """Under the genesis model the highest bids win, each paying what the next one would."""
    answer = await _decide(api)
    assert answer["certified"]
    assert [ad["ad_id"] for ad in answer["ads"]] == [10, 9, 8]
    assert [ad["slot"] for ad in answer["ads"]] == sorted(ad["slot"] for ad in answer["ads"])
    assert all(1 <= ad["price_micros"] <= 100_000 * ad["ad_id"] for ad in answer["ads"])
    assert answer["ads"][0]["creative"]["landing_url"] == "https://example.com"


async def test_one_advertiser_gets_one_ad_unless_more_are_allowed(api: Api) -> None:
    """Without a word about it an advertiser has one ad on a page, and pays no rival of its own."""
    body = {"user": USER, "slots": 3}
    usual = (await api.call("score", "POST", "/v1/decisions", json=body)).json()
    assert [(ad["ad_id"], ad["price_micros"]) for ad in usual["ads"]] == [(10, 1)]
    assert [ad["ad_id"] for ad in (await _decide(api, per_advertiser=2))["ads"]] == [10, 9]


async def test_the_next_advertiser_sets_the_price(api: Api) -> None:
    """Under the genesis model, where all rates are equal, the winner pays the next one's bid."""
    for path, body in (
        ("/v1/advertisers/2", {"name": "Boots Ltd"}),
        ("/v1/campaigns/3", {"advertiser_id": 2}),
        ("/v1/ads/11", {"campaign_id": 3, "bid_micros": 750_000}),
    ):
        assert (await api.call("admin", "PUT", path, json=body)).status_code == 200
    first, second = (await _decide(api, per_advertiser=1))["ads"]
    assert (first["ad_id"], first["price_micros"]) == (10, 750_000)
    assert (second["ad_id"], second["price_micros"]) == (11, 1)


async def test_an_empty_answer_counts_the_reasons(api: Api) -> None:
    """Every ad of the catalog is in one of the counts; an answer with ads has none."""
    await api.call("admin", "PATCH", "/v1/ads/3", json={"state": "paused"})
    answer = await _decide(api, floor_micros=2**53 - 1, exclude=[1, 2])
    assert answer["ads"] == []
    assert answer["no_fill"] == {"paused": 1, "excluded": 2, "below_floor": 7}
    assert "no_fill" not in await _decide(api)


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


async def test_a_decision_is_explained_to_an_admin_alone(api: Api) -> None:
    """The explanation has the page's ads and those asked for; a key for scores gets 403."""
    body = {"user": USER, "slots": 1, "ad_ids": [3, 999]}
    answer = await api.call("admin", "POST", "/v1/decisions:explain", json=body)
    assert answer.status_code == 200, answer.text
    found = {ad["ad_id"]: ad for ad in answer.json()["ads"]}
    assert (found[10]["slot"], found[10]["rank"], found[10]["reason"]) == (0, 1, None)
    assert (found[3]["reason"], found[999]["reason"]) == ("advertiser_limit", "unknown_ad")
    refused = await api.call("score", "POST", "/v1/decisions:explain", json=body)
    assert refused.status_code == 403
