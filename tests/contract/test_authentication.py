"""No key, no answer: but health, every call needs a key of its scope."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi.routing import APIRoute

from app.storage import keys
from tests.contract.conftest import Api, eventually, now_ms

pytestmark = pytest.mark.anyio

OPEN = {"/healthz", "/readyz"}


def _calls(api: Api) -> list[tuple[str, str]]:
    document = api.app.openapi()
    found = [
        (method.upper(), path.replace("{ad_id}", "1").replace("{campaign_id}", "1"))
        for path, methods in document["paths"].items()
        for method in methods
    ]
    filled = "019ab000-0000-7000-8000-000000000000"
    return [
        (
            method,
            path.replace("{advertiser_id}", "1")
            .replace("{snapshot_id}", filled)
            .replace("{run_id}", filled),
        )
        for method, path in found
    ]


async def test_every_route_but_health_needs_a_key(api: Api) -> None:
    """Without a key every call answers 401 and says how to send one; browsers' links need none."""
    for method, path in [*_calls(api), ("GET", "/openapi.json")]:
        if path.startswith("/v1/e/"):
            continue
        answer = await api.call("", method, path)
        if path in OPEN:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"


async def test_every_route_is_in_the_document(api: Api) -> None:
    """Nothing answers that the document does not describe, itself apart."""
    described = set(api.app.openapi()["paths"])
    paths = {path for path in _paths(api.app.routes) if path}
    assert paths - described <= {"/openapi.json"}


def _paths(routes: object) -> list[str]:
    found = []
    for route in routes:  # type: ignore[attr-defined]
        if isinstance(route, APIRoute):
            found.append(route.path)
        elif hasattr(route, "routes"):
            found += _paths(route.routes)
    return found


UNKNOWN = (
    {},
    {"Authorization": "Bearer adscent_wrong"},
    {"Authorization": "Bearer "},
    {"Authorization": "Basic YTpi"},
    {"X-Api-Key": "nonsense"},
)


async def test_unknown_keys_are_refused(api: Api) -> None:
    """A key that was never made opens nothing."""
    for headers in UNKNOWN:
        assert (await api.client().get("/v1/ads", headers=headers)).status_code == 401


async def test_key_without_the_scope_is_told_which(api: Api) -> None:
    """403 names the scope that is missing."""
    answer = await api.client("score").get("/v1/ads")
    assert answer.status_code == 403
    assert "admin" in answer.json()["detail"]
    assert answer.json()["type"].endswith("scope-missing")


async def test_key_may_come_in_x_api_key(api: Api) -> None:
    """X-Api-Key serves clients that cannot set Authorization."""
    headers = {"X-Api-Key": api.secrets["admin"]}
    assert (await api.client().get("/v1/ads", headers=headers)).status_code == 200


async def test_revoked_key_stops_within_seconds(api: Api) -> None:
    """After `adscent keys revoke` the worker takes the key no more."""
    [key] = [key for key in await keys.list_api_keys(api.database) if key.name == "test score"]
    await keys.revoke_api_key(api.database, key.id, now_ms())
    state = api.app.state.services.state
    await eventually(lambda: len(state.keys) == 2, 5)
    body = {"user": {}, "ad_ids": [1]}
    assert (await api.client("score").post("/v1/score", json=body)).status_code == 401


async def test_expired_key_is_refused_without_the_database(api: Api) -> None:
    """A worker ends a key by its own clock: the database may be away at that moment."""
    end_ms = now_ms() + 1500
    _, secret = await keys.create_api_key(
        api.database, "short", ["admin"], now_ms(), expires_ms=end_ms
    )
    state, client = api.app.state.services.state, api.client()
    await eventually(lambda: len(state.keys) == 4, 5)
    headers = {"X-Api-Key": secret}
    assert (await client.get("/v1/ads", headers=headers)).status_code == 200
    held = dict(state.keys)
    await asyncio.sleep((end_ms - now_ms()) / 1000 + 0.01)
    state.keys = held  # as if the watcher had not come since
    answer = await client.get("/v1/ads", headers=headers)
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


async def test_key_beyond_its_rate_is_told_when_to_come_back(api: Api) -> None:
    """429 with Retry-After on the short way and on the framework's; other keys are not touched."""
    _, secret = await keys.create_api_key(
        api.database, "busy", ["score", "admin"], now_ms(), requests_per_s=0.5
    )
    state, client = api.app.state.services.state, api.client()
    await eventually(lambda: len(state.keys) == 4, 5)
    headers = {"X-Api-Key": secret}
    body = {"user": {}, "ad_ids": [1]}
    assert (await client.post("/v1/score", json=body, headers=headers)).status_code == 200
    for answer in (
        await client.post("/v1/score", json=body, headers=headers),
        await client.get("/v1/ads", headers=headers),
    ):
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 2
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].endswith("rate-limited")
    assert (await api.client("score").post("/v1/score", json=body)).status_code == 200


async def test_admin_call_counts_once(api: Api) -> None:
    """A call that names its actor looks the key up twice and is charged once."""
    _, secret = await keys.create_api_key(
        api.database, "careful", ["admin"], now_ms(), requests_per_s=1.0
    )
    await eventually(lambda: len(api.app.state.services.state.keys) == 4, 5)
    headers = {"X-Api-Key": secret}
    for _ in range(2):
        answer = await api.client().patch("/v1/ads/1", json={"state": "active"}, headers=headers)
        assert answer.status_code == 200


async def test_admin_changes_are_audited_by_key(api: Api) -> None:
    """The audit row of a change names the key that made it."""
    from app.storage.audit import list_audit

    answer: httpx.Response = await api.call("admin", "PATCH", "/v1/ads/1", json={"state": "paused"})
    assert answer.status_code == 200
    [row] = await list_audit(api.database, 1)
    [key] = [key for key in await keys.list_api_keys(api.database) if key.name == "test admin"]
    assert row.actor == f"key:{key.id}"
