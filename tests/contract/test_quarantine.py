"""Clicks that break a rule are kept but set aside, counted for the operator, and released."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio


async def _ads(api: Api, slots: int) -> list[dict[str, Any]]:
    asked = {"user": {"geo": "us"}, "slots": slots, "per_advertiser": 50}
    answer = await api.call("score", "POST", "/v1/decisions", json=asked)
    ads: list[dict[str, Any]] = answer.json()["ads"]
    return ads


async def _post(api: Api, *events: tuple[str, str]) -> dict[str, Any]:
    body = {"events": [{"type": kind, "token": token} for kind, token in events]}
    answer: dict[str, Any] = (await api.call("ingest", "POST", "/v1/events", json=body)).json()
    return answer


async def _stored(api: Api) -> list[tuple[str, str | None]]:
    query = "SELECT type, quarantined_by FROM events ORDER BY decided_at, slot, type"
    async with api.database.begin() as connection:
        return [tuple(row) for row in await connection.execute(sa.text(query))]


async def test_a_token_clicked_too_often_is_set_aside_with_its_impression(api: Api) -> None:
    """What was stored before the rule broke is set aside too; the sender is told nothing."""
    [ad] = await _ads(api, 1)
    answer = await _post(api, ("impression", ad["token"]), *[("click", ad["token"])] * 9)
    assert (answer["accepted"], answer["duplicate"], answer["rejected"]) == (2, 8, [])
    assert await _stored(api) == [("click", "token"), ("impression", "token")]


async def test_a_token_clicked_too_often_over_time_is_set_aside(api: Api) -> None:
    """The first clicks were stored by earlier calls."""
    [ad] = await _ads(api, 1)
    await _post(api, ("impression", ad["token"]), ("click", ad["token"]))
    for _ in range(5):
        await _post(api, ("click", ad["token"]))
    assert await _stored(api) == [("click", "token"), ("impression", "token")]


async def test_other_tokens_are_left_alone(api: Api) -> None:
    """A rule that one decided ad breaks says nothing about the others of the page."""
    first, second = await _ads(api, 2)
    await _post(api, *[("click", first["token"])] * 9, ("click", second["token"]))
    assert await _stored(api) == [("click", "token"), ("click", None)]


async def test_an_address_that_clicks_too_much_is_set_aside(api: Api) -> None:
    """Links of browsers are judged by their address; the visitors are led on nevertheless."""
    for _ in range(4):
        for ad in await _ads(api, 8):
            answer = await api.call("", "GET", f"/v1/e/c/{ad['token']}")
            assert answer.status_code == 302
    rules = [rule for _, rule in await _stored(api)]
    assert (rules.count(None), rules.count("address")) == (30, 2)


async def test_no_address_is_stored(api: Api) -> None:
    """Neither the address nor the user agent of a browser is in any table."""
    [ad] = await _ads(api, 1)
    agent = {"User-Agent": "curious/1.0"}
    await api.call("", "GET", f"/v1/e/c/{ad['token']}", headers=agent)
    async with api.database.begin() as connection:
        rows = await connection.execute(sa.text("SELECT events::text FROM events"))
        text = " ".join(rows.scalars())
    assert "127.0.0.1" not in text
    assert "curious" not in text


async def test_counts_and_release(api: Api) -> None:
    """The operator sees counts by rule and lets one ad's events count again, once."""
    first, second = await _ads(api, 2)
    for ad in (first, second):
        await _post(api, ("impression", ad["token"]), *[("click", ad["token"])] * 9)
    items = (await api.call("admin", "GET", "/v1/quarantine")).json()["items"]
    found = [(item["rule"], item["type"], item["events"]) for item in items]
    assert found == [("token", "click", 2), ("token", "impression", 2)]
    asked = {"rule": "token", "ad_id": first["ad_id"]}
    for count in (2, 0):
        answer = await api.call("admin", "POST", "/v1/quarantine/release", json=asked)
        assert answer.json() == {"released": count}
    assert sorted(rule or "" for _, rule in await _stored(api)) == ["", "", "token", "token"]
    async with api.database.begin() as connection:
        query = sa.text("SELECT subject FROM audit WHERE action = 'release'")
        assert list((await connection.execute(query)).scalars()) == ["quarantine:token"] * 2


async def test_release_needs_an_admin_key(api: Api) -> None:
    """A key that may send events may not undo the rules about them."""
    answer = await api.call("ingest", "POST", "/v1/quarantine/release", json={"rule": "token"})
    assert answer.status_code == 403


async def test_conversion_carries_its_value(api: Api) -> None:
    """A conversion is stored with what it is worth, a close without; a click has no value."""
    [ad] = await _ads(api, 1)
    events = [
        {"type": "conversion", "token": ad["token"], "value_micros": 25_000_000},
        {"type": "close", "token": ad["token"]},
        {"type": "click", "token": ad["token"], "value_micros": 1},
    ]
    answer = await api.call("ingest", "POST", "/v1/events", json={"events": events})
    rejected = [{"index": 2, "reason": "not_a_conversion"}]
    assert answer.json() == {"accepted": 2, "duplicate": 0, "rejected": rejected}
    async with api.database.begin() as connection:
        query = sa.text("SELECT type, value_micros FROM events ORDER BY type")
        found = [tuple(row) for row in await connection.execute(query)]
    assert found == [("close", None), ("conversion", 25_000_000)]


async def test_a_click_without_an_impression_is_kept(api: Api) -> None:
    """It comes first or alone: stored once, and its impression may follow in any order."""
    [ad] = await _ads(api, 1)
    assert (await _post(api, ("click", ad["token"])))["accepted"] == 1
    answer = await _post(api, ("impression", ad["token"]), ("click", ad["token"]))
    assert (answer["accepted"], answer["duplicate"]) == (1, 1)
    assert await _stored(api) == [("click", None), ("impression", None)]


async def test_repeats_of_what_was_refused_break_no_rule(api: Api) -> None:
    """While too much waits, honest senders come again and again; their click counts in the end."""
    [ad] = await _ads(api, 1)
    writer = api.app.state.services.events
    body = {"events": [{"type": "click", "token": ad["token"]}]}
    most, writer._buffer = writer._buffer, 0
    for _ in range(9):
        answer = await api.call("ingest", "POST", "/v1/events", json=body)
        assert answer.status_code == 503
    writer._buffer = most
    await _post(api, ("click", ad["token"]))
    assert await _stored(api) == [("click", None)]
