"""The pixel and the link that browsers call without a key, over a real catalog and database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import sqlalchemy as sa

from app.serving.tokens import TokenContent, Tokens
from app.storage import keys
from tests.contract.conftest import Api, now_ms

pytestmark = pytest.mark.anyio


async def _token(api: Api) -> str:
    asked = {"user": {"geo": "us"}, "slots": 1}
    answer = await api.call("score", "POST", "/v1/decisions", json=asked)
    token: str = answer.json()["ads"][0]["token"]
    return token


async def _old_token(api: Api, **changes: object) -> str:
    """A genuine token of an ad that was decided days ago."""
    known, current = await keys.token_keys(api.database)
    tokens = Tokens(known, current, 1)
    fresh = tokens.read(await _token(api))
    fields = {name: getattr(fresh, name) for name in TokenContent.__struct_fields__}
    return tokens.seal(
        TokenContent(**{**fields, "decided_ms": now_ms() - 2 * 86_400_000, **changes})
    )


async def _types(api: Api) -> list[str]:
    async with api.database.begin() as connection:
        return list((await connection.execute(sa.text("SELECT type FROM events"))).scalars())


async def test_pixel_stores_an_impression_once(api: Api) -> None:
    """A GIF that no cache keeps; the second time the event is a duplicate."""
    token = await _token(api)
    answers = [await api.call("", "GET", f"/v1/e/i/{token}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.headers["x-adscent-event"] for answer in answers] == ["accepted", "duplicate"]
    assert answers[0].headers["content-type"] == "image/gif"
    assert answers[0].headers["cache-control"] == "no-store"
    assert answers[0].content.startswith(b"GIF89a")
    assert await _types(api) == ["impression"]


@pytest.mark.parametrize("token", ["AQ", "A" * 250, "x" * 9000])
async def test_pixel_is_an_image_even_for_a_forged_token(api: Api, token: str) -> None:
    """A page cannot mend a bad token, so it is not shown an error; nothing is stored."""
    answer = await api.call("", "GET", f"/v1/e/i/{token}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
    assert answer.headers["x-adscent-event"] in {"malformed", "unknown_key", "forged"}
    assert await _types(api) == []


async def test_link_leads_to_the_landing_page_and_stores_one_click(api: Api) -> None:
    """The address is the catalog's; one in the request is not looked at."""
    token = await _token(api)
    path = f"/v1/e/c/{token}?url=https://evil.example&landing_url=https://evil.example"
    answers = [await api.call("", "GET", path) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert {answer.headers["location"] for answer in answers} == {"https://example.com"}
    assert [answer.headers["x-adscent-event"] for answer in answers] == ["accepted", "duplicate"]
    assert await _types(api) == ["click"]


async def test_link_of_an_expired_token_leads_on_uncounted(api: Api) -> None:
    """The visitor of an old page arrives; the click is too old to count."""
    answer = await api.call("", "GET", f"/v1/e/c/{await _old_token(api)}")
    assert (answer.status_code, answer.headers["x-adscent-event"]) == (302, "expired")
    assert await _types(api) == []


@pytest.mark.parametrize("token", ["AQ", "A" * 250])
async def test_link_of_a_forged_token_leads_nowhere(api: Api, token: str) -> None:
    """404 with a problem document, and no redirect."""
    answer = await api.call("", "GET", f"/v1/e/c/{token}")
    assert answer.status_code == 404
    assert "location" not in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"


async def test_link_of_an_ad_that_the_catalog_lacks_is_not_found(api: Api) -> None:
    """A genuine token does not make up for a landing page that nobody has."""
    answer = await api.call("", "GET", f"/v1/e/c/{await _old_token(api, ad_id=12_345)}")
    assert answer.status_code == 404


async def test_link_leads_on_after_a_pause(api: Api) -> None:
    """The ad was shown before its pause, so its visitor still arrives."""
    token = await _token(api)
    paused = {"state": "paused"}
    await api.call("admin", "PATCH", "/v1/campaigns/1", json=paused)
    await api.call("admin", "PATCH", "/v1/campaigns/2", json=paused)
    assert (await api.call("", "GET", f"/v1/e/c/{token}")).status_code == 302


@pytest.fixture
async def locked(api: Api) -> AsyncIterator[Api]:
    """The application while nobody can write events."""
    services = api.app.state.services
    object.__setattr__(services, "settings", replace(services.settings, click_wait_s=0.2))
    async with api.database.session() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        yield api


async def test_link_does_not_wait_for_a_slow_database(locked: Api) -> None:
    """After `click_wait_s` the visitor is sent on; the click is stored when the database can."""
    answer = await locked.call("", "GET", f"/v1/e/c/{await _token(locked)}")
    assert (answer.status_code, answer.headers["x-adscent-event"]) == (302, "slow")


async def test_without_the_database_pixels_say_so_and_links_lead_on(api: Api) -> None:
    """503 with an image, since the event is lost; the click's visitor arrives nevertheless."""
    token = await _token(api)
    writer = api.app.state.services.events
    await writer.close()
    shown: httpx.Response = await api.call("", "GET", f"/v1/e/i/{token}")
    assert (shown.status_code, shown.headers["content-type"]) == (503, "image/gif")
    assert (shown.headers["x-adscent-event"], shown.headers["retry-after"]) == ("unavailable", "1")
    clicked = await api.call("", "GET", f"/v1/e/c/{token}")
    assert (clicked.status_code, clicked.headers["x-adscent-event"]) == (302, "unavailable")
    await asyncio.sleep(0)
    assert await _types(api) == []
