"""A canary answers its share and nothing else, ends when told to, and never outlives its end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.storage import comparisons, snapshots, workers
from app.storage.comparisons import plan_of
from tests.contract.conftest import Api, eventually, running
from tests.contract.test_model_calls import REFUSED
from tests.contract.trained import candidate, logit, trained, truncate

pytestmark = pytest.mark.anyio
USERS = [f"user {number}" for number in range(120)]


def _incumbent(api: Api) -> UUID:
    found: UUID = api.app.state.services.state.bundle.snapshot_id
    return found


async def _start(api: Api, snapshot_id: UUID, share: float = 0.5) -> dict[str, Any]:
    answer = await api.call(
        "admin", "POST", f"/v1/snapshots/{snapshot_id}/canary", json={"share": share}
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _by(api: Api, users: Iterable[str] = USERS) -> dict[str, str]:
    """The snapshot that answers each user's decision."""
    found = {}
    for user in users:
        asked = {"user": {}, "slots": 1, "user_key": user}
        answer = await api.call("score", "POST", "/v1/decisions", json=asked)
        found[user] = answer.json()["snapshot_id"]
    return found


async def test_a_canary_answers_its_share_of_users_always_the_same(api: Api) -> None:
    """Each answer names its snapshot; a user's key gets the same one every time, in scores too."""
    made = await candidate(api, bias=logit(0.2))
    began = await _start(api, made)
    assert (len(began["acknowledged"]), began["pending"]) == (1, [])
    first = await _by(api)
    counts = Counter(first.values())
    assert set(counts) == {str(made), str(_incumbent(api))}
    assert 35 <= counts[str(made)] <= 85
    assert await _by(api) == first
    for user in USERS[:20]:
        asked = {"user": {}, "ad_ids": [1], "user_key": user}
        scored = (await api.call("score", "POST", "/v1/score", json=asked)).json()
        assert scored["snapshot_id"] == first[user]
        is_canary = first[user] == str(made)
        assert scored["ads"][0]["pctr"] == pytest.approx(0.2 if is_canary else 0.05, rel=0.2)


async def test_without_a_key_decisions_are_drawn(api: Api) -> None:
    """About the share of decisions, scores and batches is answered by the canary."""
    made = await candidate(api)
    await _start(api, made)
    bodies = {
        "/v1/decisions": {"user": {}, "slots": 1},
        "/v1/score": {"user": {}, "ad_ids": [1]},
        "/v1/score:batch": {"users": [{"user": {}}], "ad_ids": [1]},
    }
    for path, asked in bodies.items():
        answers = [await api.call("score", "POST", path, json=asked) for _ in range(60)]
        count = sum(answer.json()["snapshot_id"] == str(made) for answer in answers)
        assert 12 <= count <= 48, path


async def test_the_token_and_the_explanation_name_the_canary(api: Api) -> None:
    """So its events are its own, and an explanation tells of the snapshot that decided."""
    made = await candidate(api)
    await _start(api, made)
    user = next(user for user, by in (await _by(api)).items() if by == str(made))
    asked = {"user": {}, "slots": 1, "user_key": user}
    decision = (await api.call("score", "POST", "/v1/decisions", json=asked)).json()
    content = api.app.state.services.state.tokens.read(decision["ads"][0]["token"])
    assert str(content.snapshot_id) == decision["snapshot_id"] == str(made)
    explained = (await api.call("admin", "POST", "/v1/decisions:explain", json=asked)).json()
    assert explained["snapshot_id"] == str(made)
    drawn = {"user": {}, "slots": 1}
    for _ in range(8):
        decided = (await api.call("score", "POST", "/v1/decisions", json=drawn)).json()
        again = {**drawn, "decision_id": decided["decision_id"]}
        explained = (await api.call("admin", "POST", "/v1/decisions:explain", json=again)).json()
        assert explained["snapshot_id"] == decided["snapshot_id"]


async def test_a_pause_holds_on_the_canary(api: Api) -> None:
    """The acknowledgement counts for both bundles."""
    made = await candidate(api)
    await _start(api, made)
    await api.call("admin", "PATCH", "/v1/ads/9", json={"state": "paused"})
    by = set()
    for user in USERS[:40]:
        asked = {"user": {}, "slots": 50, "user_key": user, "per_advertiser": 50}
        answer = (await api.call("score", "POST", "/v1/decisions", json=asked)).json()
        by.add(answer["snapshot_id"])
        assert 9 not in [ad["ad_id"] for ad in answer["ads"]]
        assert answer["ads"]
    assert len(by) == 2


async def test_the_end_of_a_canary_is_acknowledged(api: Api) -> None:
    """After it no answer is the canary's; what ended it stays readable."""
    made = await candidate(api)
    await _start(api, made)
    answer = await api.call("admin", "DELETE", f"/v1/snapshots/{made}/canary?reason=enough")
    assert (answer.status_code, answer.json()["pending"]) == (200, [])
    assert answer.json()["comparison"]["outcome"] == "ended"
    assert set((await _by(api)).values()) == {str(_incumbent(api))}
    view = (await api.call("admin", "GET", f"/v1/snapshots/{made}")).json()
    [ended] = view["comparisons"]
    assert (ended["outcome"], ended["end_reason"]) == ("ended", "enough")
    assert view["roles"] == ["head"]
    again = await api.call("admin", "DELETE", f"/v1/snapshots/{made}/canary")
    assert again.status_code == 409


async def test_a_canary_still_loading_does_not_answer_after_its_end(api: Api) -> None:
    """Whatever was on its way when the end was acknowledged."""
    made = await candidate(api)
    state = api.app.state.services.state
    for delay_s in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        given = ("canary", made, plan_of(api.settings, 0.5), "test")
        await comparisons.start(api.database, *given)  # type: ignore[arg-type]
        await asyncio.sleep(delay_s)
        answer = await api.call("admin", "DELETE", f"/v1/snapshots/{made}/canary")
        assert answer.status_code == 200
        for _ in range(30):
            assert state.canary is None
            await asyncio.sleep(0.002)


async def test_a_rollback_ends_the_canary(api: Api) -> None:
    """Acknowledged, no other snapshot than the one rolled back to answers."""
    first = _incumbent(api)
    second = await trained(api)
    await eventually(lambda: _incumbent(api) == second)
    made = await candidate(api)
    await _start(api, made)
    answer = await api.call("admin", "POST", "/v1/snapshots/rollback", json={"reason": "worse"})
    assert answer.json()["pending"] == []
    assert set((await _by(api)).values()) == {str(first)}
    [ended] = await comparisons.of_snapshots(api.database, [made])
    assert ended.outcome == "superseded"


async def test_a_worker_that_still_answers_with_the_canary_is_waited_for(api: Api) -> None:
    """Serving the right incumbent is not enough: a rollback names it as pending."""
    first = _incumbent(api)
    second = await trained(api)
    await eventually(lambda: _incumbent(api) == second)
    slow = uuid4()
    await workers.register(api.database, slow, "elsewhere", 1)
    await workers.beat(api.database, slow, 1, first, 7)
    answer = await api.call("admin", "POST", "/v1/snapshots/rollback")
    assert (answer.status_code, answer.json()["pending"]) == (202, [str(slow)])
    await workers.beat(api.database, slow, 1, first, None)
    again = await api.call("admin", "POST", f"/v1/snapshots/{first}/promote")
    assert (again.status_code, again.json()["pending"]) == (200, [])


async def test_the_promotion_of_the_canary_serves_it_alone(api: Api) -> None:
    """Its bundle becomes the incumbent's, without loading it again."""
    made = await candidate(api)
    await _start(api, made)
    held = api.app.state.services.state.canary.bundle
    answer = await api.call("admin", "POST", f"/v1/snapshots/{made}/promote")
    assert (answer.status_code, answer.json()["pending"]) == (200, [])
    state = api.app.state.services.state
    assert (state.canary, state.bundle.model) == (None, held.model)
    assert set((await _by(api)).values()) == {str(made)}
    [ended] = await comparisons.of_snapshots(api.database, [made])
    assert ended.outcome == "promoted"


async def test_what_is_trained_while_a_canary_runs_waits(api: Api) -> None:
    """It becomes the head and is not served, so the comparison keeps its incumbent."""
    incumbent, made = _incumbent(api), await candidate(api)
    await _start(api, made)
    third = await trained(api)
    serving = await snapshots.serving(api.database)
    assert serving is not None
    assert (serving.snapshot_id, serving.head_id) == (incumbent, third)
    await api.call("admin", "DELETE", f"/v1/snapshots/{made}/canary")
    fourth = await trained(api)
    await eventually(lambda: _incumbent(api) == fourth)


async def test_trained_snapshots_begin_as_canaries_where_the_settings_say_so(api: Api) -> None:
    """But what follows the genesis serves at once; the next one waits for the canary's end."""
    plan = plan_of(api.settings, 0.3)
    first = await trained(api, canary=plan)
    await eventually(lambda: _incumbent(api) == first)
    second = await trained(api, canary=plan)
    third = await trained(api, canary=plan)
    canary = await comparisons.running_canary(api.database)
    assert canary is not None
    assert (canary.snapshot_id, canary.incumbent_id, canary.share) == (second, first, 0.3)
    assert (canary.actor, canary.reason) == ("training", "trained")
    serving = await snapshots.serving(api.database)
    assert serving is not None
    assert (serving.snapshot_id, serving.head_id) == (first, third)


async def test_what_may_not_be_a_canary_is_refused(api: Api) -> None:
    """Refused, damaged, served, unknown ones; more than half; a second one."""
    made, other = await candidate(api), await candidate(api)
    await snapshots.pin(api.database, "test")
    refused, damaged = await trained(api, REFUSED), await trained(api, damaged=True)
    await snapshots.unpin(api.database, "test")
    for snapshot_id, status in (
        (refused, 409),
        (damaged, 409),
        (_incumbent(api), 409),
        (uuid4(), 404),
    ):
        answer = await api.call("admin", "POST", f"/v1/snapshots/{snapshot_id}/canary")
        assert answer.status_code == status, answer.text
    too_much = {"share": 0.6}
    answer = await api.call("admin", "POST", f"/v1/snapshots/{made}/canary", json=too_much)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "share")
    await _start(api, made)
    second = await api.call("admin", "POST", f"/v1/snapshots/{other}/canary")
    assert second.status_code == 409
    assert "End that canary first" in second.json()["detail"]


async def test_a_worker_that_cannot_load_the_canary_answers_without_it(api: Api) -> None:
    """It serves the incumbent to everybody, and readiness says why."""
    made = await candidate(api)
    await _start(api, made)
    truncate(api.settings.snapshot_store / str(made) / "model.user_main.npy")
    async with running(api.settings) as app:
        state = app.state.services.state
        await eventually(lambda: None not in (state.bundle, state.canary_fault))
        assert state.canary is None
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert str(made) in answer.json()["reasons"][0]


async def test_a_shadow_answers_nothing(api: Api) -> None:
    """It is listed as one, runs beside a canary, and ends."""
    made, incumbent = await candidate(api), _incumbent(api)
    began = await api.call("admin", "POST", f"/v1/snapshots/{made}/shadow")
    assert began.status_code == 200
    assert began.json()["comparison"]["share"] is None
    assert set((await _by(api, USERS[:20])).values()) == {str(incumbent)}
    await _start(api, made)
    view = (await api.call("admin", "GET", f"/v1/snapshots/{made}")).json()
    assert sorted(view["roles"]) == ["canary", "head", "shadow"]
    assert sorted(one["kind"] for one in view["comparisons"]) == ["canary", "shadow"]
    ended = await api.call("admin", "DELETE", f"/v1/snapshots/{made}/shadow")
    assert ended.json()["comparison"]["outcome"] == "ended"


async def test_pinned_by_one_call(api: Api) -> None:
    """What is trained afterwards waits; the pin is shown."""
    incumbent = _incumbent(api)
    answer = await api.call("admin", "POST", "/v1/snapshots/pin", json={"reason": "holiday"})
    assert answer.json()["is_pinned"] is True
    made = await trained(api)
    listed = (await api.call("admin", "GET", "/v1/snapshots")).json()["items"]
    shown = {one["id"]: (one["is_serving"], one["is_pinned"]) for one in listed}
    assert shown == {str(incumbent): (True, True), str(made): (False, False)}


async def test_which_snapshot_answered_when(api: Api) -> None:
    """Each change with who, why and what answered from then on, until the next one."""
    first, made = _incumbent(api), await candidate(api)
    await _start(api, made, 0.25)
    await api.call("admin", "DELETE", f"/v1/snapshots/{made}/canary?reason=slow")
    body = {"pin": True, "reason": "by hand"}
    await api.call("admin", "POST", f"/v1/snapshots/{made}/promote", json=body)
    items = (await api.call("admin", "GET", "/v1/snapshots/history")).json()["items"]
    told = [(one["action"], one["snapshot_id"], one["share"], one["reason"]) for one in items]
    assert told == [
        ("promotion", str(made), None, "by hand"),
        ("canary_ended", str(first), None, "slow"),
        ("canary_started", str(first), 0.25, ""),
        ("unpin", str(first), None, ""),
        ("pin", str(first), None, ""),
        ("genesis", str(first), None, ""),
    ]
    assert [one["is_pinned"] for one in items] == [True, False, False, False, True, False]
    assert items[0]["until"] is None
    assert [one["until"] for one in items[1:]] == [one["from_at"] for one in items[:-1]]
    assert items[0]["actor"].startswith("key:")
    canary = items[2]
    asked = {"from": canary["from_at"], "to": canary["from_at"]}
    during = (await api.call("admin", "GET", "/v1/snapshots/history", params=asked)).json()
    assert [one["action"] for one in during["items"]] == ["canary_started"]
    page = (await api.call("admin", "GET", "/v1/snapshots/history?limit=2")).json()
    after = {"limit": 2, "cursor": page["next_cursor"]}
    second = (await api.call("admin", "GET", "/v1/snapshots/history", params=after)).json()
    assert page["items"] + second["items"] == items[:4]
    wrong = await api.call("admin", "GET", "/v1/snapshots/history?from=yesterday")
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "query.from")
