"""Who may call what, and what a caller can make the server say to others."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from tests.contract.conftest import SCOPES, Api, eventually

pytestmark = pytest.mark.anyio

_ID = "019ab000-0000-7000-8000-000000000000"
_FILLED = {"snapshot_id": _ID, "run_id": _ID, "name": "home", "feature": "user.geo", "value": "us"}


def _operations() -> list[tuple[str, str, str, Any]]:
    """Method, path, scope and example body of every call with a scope; its parameters filled in."""
    found = []
    for path, methods in create_app(Settings()).openapi()["paths"].items():
        filled = re.sub(r"{(\w+)(:\w+)?}", lambda match: _FILLED.get(match[1], "1"), path)
        for method, call in methods.items():
            if "x-scope" in call:
                content = call.get("requestBody", {}).get("content", {})
                body = content.get("application/json", {}).get("example")
                found.append((method.upper(), filled, call["x-scope"], body))
    return found


async def test_no_key_does_what_its_scopes_do_not_say(api: Api) -> None:
    """Every call of the document, with a key of each scope that is not its own: 403, always."""
    tried = 0
    for method, path, scope, body in _operations():
        for other in set(SCOPES) - {scope} if scope != "any" else ():
            answer = await api.call(other, method, path, json=body)
            assert answer.status_code == 403, (other, method, path)
            assert answer.json()["type"].endswith("scope-missing")
            tried += 1
    assert tried > 60


async def test_key_in_the_address_is_no_key(api: Api) -> None:
    """Addresses end up in logs and histories, so a key is only taken from a header."""
    secret = api.secrets["admin"]
    for name in ("key", "api_key", "access_token", "Authorization", "X-Api-Key"):
        answer = await api.client().get(f"/v1/ads?{name}={secret}")
        assert answer.status_code == 401


async def test_first_of_two_keys_counts(api: Api) -> None:
    """A second header, added on the way, neither takes over nor helps out."""
    good, bad = f"Bearer {api.secrets['admin']}", "Bearer adscent_wrong"
    for pair, status in (((good, bad), 200), ((bad, good), 401)):
        headers = [("Authorization", one) for one in pair]
        assert (await api.client().get("/v1/ads", headers=headers)).status_code == status


async def test_landing_page_cannot_add_a_header(api: Api) -> None:
    """Line ends in an address of the catalog leave as text of the address."""
    address = "https://example.com/\r\nSet-Cookie: a=b\r\n\r\n<script>"
    body = {"campaign_id": 1, "bid_micros": 9_000_000, "creative": {"landing_url": address}}
    assert (await api.call("admin", "PUT", "/v1/ads/77", json=body)).status_code == 200
    asked = {"user": {}, "slots": 50, "per_advertiser": 50}
    decided = (await api.call("score", "POST", "/v1/decisions", json=asked)).json()
    [token] = [ad["token"] for ad in decided["ads"] if ad["ad_id"] == 77]
    answer = await api.client().get(f"/v1/e/c/{token}")
    assert answer.status_code == 302
    assert "set-cookie" not in answer.headers
    assert not set("\r\n<") & set(answer.headers["location"])


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "//evil.example", "/v1/ads", "data:text/html,x", "ftp://x/"]
)
async def test_click_leads_only_to_web_pages(api: Api, address: str) -> None:
    """Whatever the catalog holds, a click never runs a script or leads back into the server."""
    body = {"campaign_id": 1, "bid_micros": 9_000_000, "creative": {"landing_url": address}}
    put = await api.call("admin", "PUT", "/v1/ads/77", json=body)
    if put.status_code == 422:
        return
    asked = {"user": {}, "slots": 50, "per_advertiser": 50}
    decided = (await api.call("score", "POST", "/v1/decisions", json=asked)).json()
    [token] = [ad["token"] for ad in decided["ads"] if ad["ad_id"] == 77]
    assert (await api.client().get(f"/v1/e/c/{token}")).status_code == 404


async def test_address_of_a_click_decides_nothing(api: Api) -> None:
    """No parameter, host or forwarded header moves the page that a click leads to."""
    asked = {"user": {}, "slots": 1}
    decided = (await api.call("score", "POST", "/v1/decisions", json=asked)).json()
    token = decided["ads"][0]["token"]
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    for suffix in ("", "?url=https://evil.example", "?landing_url=//evil.example"):
        answer = await api.client().get(f"/v1/e/c/{token}{suffix}", headers=headers)
        assert "evil" not in answer.headers.get("location", "")


async def test_host_of_a_request_is_never_repeated(api: Api) -> None:
    """A slash too many is not found, rather than redirected to whatever host was named."""
    headers = {"Host": "evil.example"}
    for path in ("/v1/ads/", "/v1/decisions/", "/healthz/"):
        answer = await api.client("admin").get(path, headers=headers)
        assert answer.status_code in (404, 405)
        assert "location" not in answer.headers
        assert "evil" not in answer.text


async def test_revoked_key_is_gone_from_memory(api: Api) -> None:
    """Keys that have ended are not kept, however many there were."""
    from app.storage import keys
    from tests.contract.conftest import now_ms

    made = [await keys.create_api_key(api.database, "x", ["score"], now_ms()) for _ in range(20)]
    state = api.app.state.services.state
    await eventually(lambda: len(state.keys) == 23, 5)
    for key_id, _ in made:
        await keys.revoke_api_key(api.database, key_id, now_ms())
    await eventually(lambda: len(state.keys) == 3, 5)


async def test_health_tells_strangers_nothing_of_the_inside(api: Api) -> None:
    """What keeps a snapshot from being served is said without paths and addresses."""
    state = api.app.state.services.state
    state.snapshot_fault = "snapshot 7 is promoted but not served: s3://bucket failed (/srv/x)"
    answer = await api.client().get("/readyz")
    assert answer.json()["status"] == "degraded"
    assert "snapshot 7 is promoted but not served" in answer.text
    assert "bucket" not in answer.text
    assert "/srv" not in answer.text
