"""Every act of an administrator leaves a row that says who, what, when, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.main import create_app
from app.settings import Settings
from app.storage import keys, snapshots
from app.storage.audit import list_audit
from tests.contract.conftest import Api, eventually, now_ms
from tests.contract.trained import trained

pytestmark = pytest.mark.anyio

READS = {"POST /v1/decisions:explain"}
"""Calls of an administrator that change nothing, although they are no GET."""
_AD = {"campaign_id": 1, "bid_micros": 7, "features": {"category": ["hats"]}}
# Call → its path, its body, the subject that the audit is to name.
ACTS: Mapping[str, tuple[str, Any, str]] = {
    "PUT /v1/ads/{ad_id}": ("/v1/ads/1", _AD, "ad:1"),
    "PATCH /v1/ads/{ad_id}": ("/v1/ads/1", {"bid_micros": 9}, "ad:1"),
    "POST /v1/ads:bulk": (*("/v1/ads:bulk", {"changes": [{"id": 2, "bid_micros": 11}]}, "ad:2"),),
    "PUT /v1/campaigns/{campaign_id}": (
        *("/v1/campaigns/1", {"advertiser_id": 1, "name": "b"}, "campaign:1"),
    ),
    "PATCH /v1/campaigns/{campaign_id}": ("/v1/campaigns/1", {"state": "paused"}, "campaign:1"),
    "PUT /v1/advertisers/{advertiser_id}": ("/v1/advertisers/1", {"name": "b"}, "advertiser:1"),
    "PATCH /v1/advertisers/{advertiser_id}": (
        *("/v1/advertisers/1", {"state": "paused"}, "advertiser:1"),
    ),
    "PUT /v1/placements/{name}": ("/v1/placements/home", {"floor_micros": 5}, "placement:home"),
    "POST /v1/quarantine/release": (
        *("/v1/quarantine/release", {"rule": "address"}, "quarantine:address"),
    ),
    "POST /v1/snapshots/{snapshot_id}/shadow": (
        *("/v1/snapshots/{first}/shadow", None, "snapshot:{first}"),
    ),
    "DELETE /v1/snapshots/{snapshot_id}/shadow": (
        *("/v1/snapshots/{first}/shadow", None, "snapshot:{first}"),
    ),
    "POST /v1/snapshots/{snapshot_id}/canary": (
        *("/v1/snapshots/{first}/canary", {"share": 0.1}, "snapshot:{first}"),
    ),
    "DELETE /v1/snapshots/{snapshot_id}/canary": (
        *("/v1/snapshots/{first}/canary", None, "snapshot:{first}"),
    ),
    "POST /v1/snapshots/pin": ("/v1/snapshots/pin", None, "snapshot:{serving}"),
    "POST /v1/snapshots/{snapshot_id}/promote": (
        *("/v1/snapshots/{serving}/promote", {"pin": True}, "snapshot:{serving}"),
    ),
    "POST /v1/snapshots/unpin": ("/v1/snapshots/unpin", None, "snapshot:{serving}"),
    "POST /v1/snapshots/rollback": ("/v1/snapshots/rollback", None, "snapshot:"),
    "POST /v1/retrains": ("/v1/retrains", {}, "run:"),
    "DELETE /v1/users/{feature}/{value}": ("/v1/users/user.geo/us", None, "user.geo:"),
}


def _changing() -> set[str]:
    """Every call that changes something for an administrator, as the document has them."""
    return {
        f"{method.upper()} {path}"
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method, call in methods.items()
        if method != "get" and call.get("x-scope") == "admin"
    } - READS


def test_every_changing_call_is_known_here() -> None:
    """A new call of an administrator is not done before its row of the audit is tested."""
    assert _changing() == set(ACTS)


async def test_every_act_is_in_the_audit(api: Api) -> None:
    """In the order of the table; each names its key, its subject, and what it became."""
    state = api.app.state.services.state
    first, second = state.bundle.snapshot_id, await trained(api)
    await eventually(lambda: state.bundle.snapshot_id == second)
    serving = await snapshots.serving(api.database)
    assert serving is not None
    ids = {"first": first, "serving": serving.snapshot_id}
    admin = next(one for one in await keys.list_api_keys(api.database) if one.name == "test admin")
    for act, (path, body, subject) in ACTS.items():
        [before] = await list_audit(api.database, 1)
        at = path.format(**ids)
        given = {} if body is None else {"json": body}
        answer = await api.call("admin", act.partition(" ")[0], at, **given)
        assert answer.status_code in (200, 202), (act, answer.text)
        [row] = await list_audit(api.database, 1)
        assert row.id > before.id, act
        assert row.actor == f"key:{admin.id}"
        assert row.subject.startswith(subject.format(**ids)), act
        assert row.after is not None, act


async def test_audit_is_listed_page_by_page(api: Api) -> None:
    """The newest first, each once, with the state before and after."""
    for bid in range(1, 6):
        await api.call("admin", "PATCH", "/v1/ads/1", json={"bid_micros": bid})
    found, cursor = [], ""
    while cursor is not None:
        suffix = f"&cursor={cursor}" if cursor else ""
        answer = (await api.call("admin", "GET", f"/v1/audit?subject=ad:1&limit=2{suffix}")).json()
        found += answer["items"]
        cursor = answer["next_cursor"]
    changed = [row for row in found if row["action"] == "patch"]
    assert [row["after"]["bid_micros"] for row in changed] == [5, 4, 3, 2, 1]
    assert [row["before"]["bid_micros"] for row in changed] == [4, 3, 2, 1, 100_000]
    assert len({row["id"] for row in found}) == len(found)


async def test_audit_is_found_by_who_did_it(api: Api) -> None:
    """All that one key did, and nothing of another."""
    key_id, secret = await keys.create_api_key(api.database, "agency", ["admin"], now_ms())
    query = f"/v1/audit?actor=key:{key_id}"
    assert (await api.call("admin", "GET", query)).json()["items"] == []
    await api.call("admin", "PATCH", "/v1/ads/1", json={"bid_micros": 3})
    assert (await api.call("admin", "GET", query)).json()["items"] == []
    [made] = (await api.call("admin", "GET", f"/v1/audit?subject=api_key:{key_id}")).json()["items"]
    assert (made["action"], made["actor"], made["before"]) == ("create", "cli", None)
    assert secret not in str(made)


@pytest.mark.parametrize("scope", ["score", "ingest"])
async def test_audit_is_for_administrators(api: Api, scope: str) -> None:
    """It names keys and bids: no other scope reads it."""
    assert (await api.call(scope, "GET", "/v1/audit")).status_code == 403


@pytest.mark.parametrize("query", ["subject=%00", "subject=", "cursor=x", "actor=%00", "before=1"])
async def test_odd_filters_are_refused(api: Api, query: str) -> None:
    """What PostgreSQL could not compare with is the caller's mistake, not a failure."""
    assert (await api.call("admin", "GET", f"/v1/audit?{query}")).status_code == 422
