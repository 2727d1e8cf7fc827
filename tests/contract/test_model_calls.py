"""Snapshots and training runs over HTTP; what a worker does with a damaged snapshot."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
import msgspec
import pytest

from models import snapshot as snapshot_folder
from models.snapshot import Check, Verdict
from tests.contract.conftest import Api, eventually, running
from tests.contract.trained import trained

pytestmark = pytest.mark.anyio

REPAIRED = Verdict("repaired", ())
REFUSED = Verdict("refused", (Check("finite", 1.0, 0.0, False, "a parameter is not finite"),))


def _served(api: Api) -> UUID:
    found: UUID = api.app.state.services.state.bundle.snapshot_id
    return found


async def test_accepted_snapshot_is_swapped_in(api: Api) -> None:
    """A worker serves what training has recorded, without a restart."""
    made = await trained(api)
    await eventually(lambda: _served(api) == made)


async def test_snapshots_are_listed_with_their_checks(api: Api) -> None:
    """Newest first; each check has its value and limit; the refused one says why."""
    refused = await trained(api, REFUSED)
    listed = (await api.call("admin", "GET", "/v1/snapshots")).json()["items"]
    assert listed[0]["id"] == str(refused)
    assert listed[0]["verdict"]["reasons"] == ["a parameter is not finite"]
    assert listed[0]["verdict"]["checks"][0]["limit"] == 0.0
    assert [item["is_serving"] for item in listed] == [False, True]
    one = await api.call("admin", "GET", f"/v1/snapshots/{refused}")
    assert one.json() == listed[0]


async def test_refused_snapshot_is_never_promoted(api: Api) -> None:
    """Promotion of a refused snapshot is a conflict that names the reason."""
    refused = await trained(api, REFUSED)
    answer = await api.call("admin", "POST", f"/v1/snapshots/{refused}/promote")
    assert answer.status_code == 409
    assert "refused" in answer.json()["detail"]
    assert _served(api) != refused


async def test_rollback_returns_to_the_one_before_and_pins(api: Api) -> None:
    """After a rollback the former snapshot serves, and goes on serving when a new one is made."""
    first = _served(api)
    second = await trained(api)
    await eventually(lambda: _served(api) == second)
    answer = (await api.call("admin", "POST", "/v1/snapshots/rollback")).json()
    assert (answer["snapshot_id"], answer["head_id"]) == (str(first), str(first))
    assert answer["is_pinned"] is True
    assert (len(answer["acknowledged"]), answer["pending"]) == (1, [])
    assert _served(api) == first
    third = await trained(api)
    promoted = await api.call("admin", "POST", f"/v1/snapshots/{third}/promote")
    assert promoted.json()["is_pinned"] is False
    assert _served(api) == third


async def test_a_snapshot_still_loading_does_not_come_after_a_rollback(api: Api) -> None:
    """Once a rollback is acknowledged no other snapshot serves, whatever was on its way."""
    first = _served(api)
    for delay_s in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        await trained(api)
        await asyncio.sleep(delay_s)
        answer = await api.call("admin", "POST", "/v1/snapshots/rollback")
        assert answer.status_code == 200
        for _ in range(40):
            assert _served(api) == first
            await asyncio.sleep(0.002)
        assert (await api.call("admin", "POST", "/v1/snapshots/unpin")).status_code == 200


async def test_nothing_to_roll_back_to_is_a_conflict(api: Api) -> None:
    """The first snapshot has none before it."""
    answer = await api.call("admin", "POST", "/v1/snapshots/rollback")
    assert answer.status_code == 409


async def test_rollback_names_what_serves_instead(api: Api) -> None:
    """`serving` guards against undoing another's change: 409 names what serves instead."""
    first = _served(api)
    second = await trained(api)
    await eventually(lambda: _served(api) == second)
    given = {"serving": str(first), "reason": "clicks fell"}
    answer = await api.call("admin", "POST", "/v1/snapshots/rollback", json=given)
    assert answer.status_code == 409
    assert f"snapshot {second} serves now" in answer.json()["detail"]
    assert _served(api) == second
    given = {"serving": str(second)}
    answer = await api.call("admin", "POST", "/v1/snapshots/rollback", json=given)
    assert (answer.status_code, answer.json()["snapshot_id"]) == (200, str(first))


async def test_pause_survives_a_swap(api: Api) -> None:
    """A paused ad stays paused under the next snapshot."""
    await api.call("admin", "PATCH", "/v1/ads/10", json={"state": "paused"})
    made = await trained(api)
    await eventually(lambda: _served(api) == made)
    body = {"user": {}, "slots": 50}
    answer = await api.call("score", "POST", "/v1/decisions", json=body)
    assert 10 not in [ad["ad_id"] for ad in answer.json()["ads"]]


async def test_damaged_snapshot_is_refused_and_the_incumbent_stays(api: Api) -> None:
    """An altered file keeps the snapshot out; readiness names it."""
    incumbent = _served(api)
    made = await trained(api, damaged=True)
    state = api.app.state.services.state
    await eventually(lambda: state.snapshot_fault is not None)
    assert _served(api) == incumbent
    answer: httpx.Response = await api.call("", "GET", "/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert str(made) in answer.json()["reasons"][0]


async def test_a_worker_that_starts_over_a_damaged_snapshot_serves_the_one_before(
    api: Api,
) -> None:
    """With nothing in memory it takes the newest earlier snapshot that loads, and says why."""
    good = _served(api)
    damaged = await trained(api, damaged=True)
    async with running(api.settings) as app:
        state = app.state.services.state
        await eventually(lambda: None not in (state.bundle, state.snapshot_fault))
        assert state.bundle.snapshot_id == good
        assert str(damaged) in state.snapshot_fault


async def test_a_snapshot_with_a_rewritten_manifest_cannot_be_promoted(api: Api) -> None:
    """What the database recorded is what counts: a changed bias is found."""
    made = await trained(api, REPAIRED)
    folder = api.settings.snapshot_store / str(made)
    altered = msgspec.structs.replace(snapshot_folder.verify(folder), bias=5.0)
    (folder / "manifest.json").write_bytes(snapshot_folder.manifest_json(altered))
    answer = await api.call("admin", "POST", f"/v1/snapshots/{made}/promote")
    assert answer.status_code == 409
    assert "not the recorded one" in answer.json()["detail"]


async def test_damaged_snapshot_cannot_be_promoted(api: Api) -> None:
    """Promotion looks at the files first, so that no worker has to."""
    made = await trained(api, damaged=True)
    answer = await api.call("admin", "POST", f"/v1/snapshots/{made}/promote")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("snapshot-corrupt")


async def test_retrain_is_requested_and_listed(api: Api) -> None:
    """A run is entered with its overrides, for the jobs process to take."""
    answer = await api.call("admin", "POST", "/v1/retrains", json={"step_size": 1000.0})
    assert answer.status_code == 202
    run = answer.json()
    assert (run["state"], run["overrides"]) == ("requested", {"step_size": 1000.0})
    assert (await api.call("admin", "GET", f"/v1/retrains/{run['id']}")).json() == run
    assert (await api.call("admin", "GET", "/v1/retrains")).json()["items"] == [run]


async def test_retrain_needs_no_body(api: Api) -> None:
    """Training now with the usual settings takes no arguments."""
    answer = await api.call("admin", "POST", "/v1/retrains")
    assert answer.status_code == 202
    assert answer.json()["overrides"] == {}


async def test_radii_may_only_be_tightened(api: Api) -> None:
    """A tighter radius is taken, a wider one refused with the limit."""
    tight = await api.call("admin", "POST", "/v1/retrains", json={"user_radius": 0.01})
    assert tight.status_code == 202
    wide = await api.call("admin", "POST", "/v1/retrains", json={"ad_radius": 1e6})
    assert wide.status_code == 422
    assert wide.json()["errors"][0]["field"] == "ad_radius"
    assert "tighter" in wide.json()["errors"][0]["limit"]
