"""The Python client against the real application: every call, every answer, every error."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_type_hints
from uuid import UUID

import httpx
import msgspec
import pytest
from adscent_client import (
    AsyncClient,
    Call,
    Client,
    Conflict,
    Event,
    EventSender,
    Forbidden,
    Invalid,
    NotFound,
    Outcome,
    Overloaded,
    Retries,
    Unauthorized,
    Unreachable,
    answers,
    calls,
)

from app.storage import keys
from tests.contract.conftest import SCOPES, Api, eventually

pytestmark = pytest.mark.anyio
_ID = UUID(int=7)
_SAMPLES: dict[str, tuple[Any, ...]] = {
    "decide": ({},),
    "explain": ({},),
    "score": ({}, [1]),
    "score_batch": ([{}], [1]),
    "report": ([],),
    "put_ad": (1, {}),
    "change_ads": ([],),
    "put_campaign": (1, 2),
    "patch_campaign": (1, "paused"),
    "patch_advertiser": (1, "paused"),
    "put_placement": ("top",),
    "get_placement": ("top",),
    "release": ("token",),
    "erase_user": ("geo", "us"),
    "get_erasure": ("geo", "us"),
}
_NEEDS_NO_CLIENT = {"/v1/e/i/{token}", "/v1/e/c/{token}", "/healthz"}


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncClient]:
    """A client whose key may do everything, over the application itself."""
    key_id, secret = await keys.create_api_key(api.database, "all", list(SCOPES), 0)
    known = api.app.state.services.state
    await eventually(lambda: str(key_id) in {holder.key_id for holder in known.keys.values()})
    async with AsyncClient(
        "http://test", secret, transport=httpx.ASGITransport(api.app), retries=Retries(1)
    ) as found:
        yield found


def _operations() -> Iterator[Call[Any]]:
    """One call of each public function of `calls`."""
    for name, function in inspect.getmembers(calls, inspect.isfunction):
        if function.__module__ != calls.__name__ or name.startswith("_"):
            continue
        needed = [
            parameter
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty
        ]
        given = _SAMPLES.get(name) or tuple(_sample(parameter) for parameter in needed)
        yield function(*given)


def _sample(parameter: inspect.Parameter) -> object:
    return _ID if "UUID" in str(parameter.annotation) else 1


async def test_every_operation_of_the_api_has_a_call_and_no_other(api: Api) -> None:
    """Paths and methods of `calls` are those of the OpenAPI document, links for browsers apart."""
    document = api.app.openapi()
    offered = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path not in _NEEDS_NO_CLIENT
    }
    assert {_operation(call, offered) for call in _operations()} == offered


def _operation(call: Call[Any], offered: set[tuple[str, str]]) -> tuple[str, str]:
    """The operation that a call makes: that of exactly its path, else of a pattern that it fits."""
    if (call.method, call.path) in offered:
        return call.method, call.path
    patterns = {path: re.sub(r"\{\w+\}", r"[^/:]+", path) for _, path in offered}
    (found,) = (
        path
        for method, path in offered
        if method == call.method and re.fullmatch(patterns[path], call.path)
    )
    return call.method, found


async def test_answers_have_every_field_that_the_api_promises(api: Api) -> None:
    """What the client reads, the OpenAPI document has; types that it leaves open are dicts."""
    schemas = api.app.openapi()["components"]["schemas"]
    names = {"Ad": "AdView", "Snapshot": "SnapshotView", "Run": "RunView", "Stored": "EventsAnswer"}
    names |= {"Decision": "Decision", "DecidedAd": "DecidedAd", "ScoredAd": "ScoredAd"}
    names |= {"Performance": "PerformanceView", "Period": "PeriodView", "Erasure": "ErasureView"}
    names |= {"Explanation": "Explanation", "ExplainedAd": "ExplainedAd", "Act": "AuditView"}
    for ours, theirs in names.items():
        fields = set(get_type_hints(getattr(answers, ours)))
        assert fields <= set(schemas[theirs]["properties"]), ours


async def test_decision_and_its_events(api: Api, client: AsyncClient) -> None:
    """What was decided is reported by its tokens, once however often."""
    decision = await client.decide({"geo": "us"}, slots=2, per_advertiser=2)
    assert [ad.slot for ad in decision.ads] == [0, 1]
    ad = decision.ads[0]
    events = [ad.impression(), ad.click(), ad.conversion(2_000_000), ad.close()]
    assert await client.report(events) == answers.Stored(4, 0, [])
    again = await client.report([*events, Event("click", "forged")])
    assert (again.accepted, again.duplicate, again.rejected[0].index) == (0, 4, 4)
    assert (await api.client().get(client.impression_url(ad))).status_code == 200
    assert (await api.client().get(client.click_url(ad))).status_code == 302


async def test_scores_of_one_and_of_many(client: AsyncClient) -> None:
    """Scores come in the order of the candidates; unknown ads say so."""
    scores = await client.score({"geo": "us"}, [3, 999])
    assert [(ad.ad_id, ad.known) for ad in scores.ads] == [(3, True), (999, False)]
    many = await client.call(calls.score_batch([{"geo": "us"}, {}], [3, 4]))
    assert len(many.users) == 2
    assert many.users[0].pctr[0] == pytest.approx(scores.ads[0].pctr)


async def test_catalog_and_kill_switch(client: AsyncClient) -> None:
    """A pause says where it holds; lists are read to their end, page after page."""
    change = await client.pause(3)
    assert change.ad.state == "paused"
    assert change.holds_everywhere
    assert [ad.id async for ad in client.items(calls.list_ads(state="paused"))] == [3]
    one_by_one = calls.list_ads()
    one_by_one = Call("GET", one_by_one.path, one_by_one.answer, params={"limit": 1})
    assert [ad.id async for ad in client.items(one_by_one)] == list(range(1, 11))
    assert (await client.resume(3)).ad.state == "active"
    many = await client.call(calls.change_ads([{"id": 4, "bid_micros": 5}, {"id": 999}]))
    assert (many.changed, len(many.refused)) == (1, 1)


async def test_lists_and_reports_are_read(client: AsyncClient) -> None:
    """Snapshots, runs, history, reports, quarantine and audit decode as their types say."""
    (serving,) = [each async for each in client.items(calls.list_snapshots())]
    assert (await client.call(calls.get_snapshot(serving.id))).is_serving
    assert (await client.call(calls.pin(reason="test"))).is_pinned
    assert not (await client.call(calls.unpin())).is_pinned
    run = await client.call(calls.retrain(step_size=0.5))
    assert (await client.call(calls.get_run(run.id))).overrides == {"step_size": 0.5}
    periods = [each async for each in client.items(calls.history())]
    assert periods[0].snapshot_id == serving.id
    report = await client.call(calls.performance(["ad", "hour"], ad_ids=[1, 2]))
    assert report.group_by == ["ad", "hour"]
    assert [each async for each in client.items(calls.list_quarantine())] == []
    acts = [each async for each in client.items(calls.audit())]
    assert "unpin" in {act.action for act in acts}
    assert (await client.call(calls.readiness())).status == "ready"


async def test_errors_say_what_to_mend(api: Api, client: AsyncClient) -> None:
    """Each status is an error of its own, with the server's account of the fault."""
    with pytest.raises(NotFound, match="404"):
        await client.call(calls.get_ad(999))
    with pytest.raises(Invalid) as caught:
        await client.decide({"nonsense": 1})
    assert caught.value.problem.errors[0].field == "user.nonsense"
    with pytest.raises(Conflict):
        await client.call(calls.rollback())
    transport = httpx.ASGITransport(api.app)
    for key, error in ((None, Unauthorized), (api.secrets["score"], Forbidden)):
        async with AsyncClient("http://test", key, transport=transport) as other:
            with pytest.raises(error):
                await other.pause(1)


class _Flaky(BaseHTTPRequestHandler):
    """Answers from the server's list of (status, Retry-After, body), the last for ever."""

    def do_POST(self) -> None:
        """Answer the next one."""
        self.rfile.read(int(self.headers["Content-Length"]))
        left: list[tuple[int, str, object]] = self.server.left  # type: ignore[attr-defined]
        self.server.asked += 1  # type: ignore[attr-defined]
        status, wait, body = left.pop(0) if len(left) > 1 else left[0]
        content = msgspec.json.encode(body)
        self.send_response(status)
        self.send_header("Retry-After", wait)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def flaky(*left: tuple[int, str, object]) -> Iterator[ThreadingHTTPServer]:
    """A server on 127.0.0.1 that answers those, one after the other."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Flaky) as server:
        server.left, server.asked = list(left), 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


_BUSY = (503, "0.02", {"title": "Too many requests at once", "detail": "later"})
_STORED = (200, "0", {"accepted": 1, "duplicate": 0, "rejected": []})
_EVENT = Event("impression", "token")


def test_a_busy_server_is_asked_again() -> None:
    """A 503 is waited out, as often as was allowed, and is an error after that."""
    with flaky(_BUSY, _BUSY, _STORED) as server, Client(_url(server)) as client:
        assert client.report([_EVENT]).accepted == 1
        assert server.asked == 3  # type: ignore[attr-defined]
    with flaky(_BUSY) as server, Client(_url(server), retries=Retries(2, 0.01)) as client:
        with pytest.raises(Overloaded, match="later"):
            client.report([_EVENT])
        assert server.asked == 2  # type: ignore[attr-defined]


def test_a_call_with_a_deadline_is_not_made_again() -> None:
    """It would come too late."""
    with flaky(_BUSY) as server, Client(_url(server)) as client:
        with pytest.raises(Overloaded):
            client.decide({}, deadline_ms=50)
        assert server.asked == 1  # type: ignore[attr-defined]


def test_what_may_have_happened_is_not_repeated() -> None:
    """Without an answer a rollback is left alone, and so is what must not be done twice."""
    error = Unreachable("no answer")
    assert not calls.rollback().may_follow(error)
    assert not calls.retrain().may_follow(error)
    assert calls.report([]).may_follow(error)
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable):
        client.call(calls.rollback())


def test_the_sender_keeps_events_until_they_are_stored() -> None:
    """Events outlive a busy server, and what was refused is told."""
    outcomes: list[Outcome] = []
    invalid = (422, "0", {"title": "The request is not valid", "detail": "no"})
    with flaky(_BUSY, _BUSY, _BUSY, _STORED, invalid) as server, Client(_url(server)) as client:
        sender = EventSender(client, at_once=1, on_outcome=outcomes.append)
        assert all(sender.add(_EVENT) for _ in range(2))
        assert sender.close() == 0
    stored, refused = outcomes
    assert stored.stored is not None
    assert stored.stored.accepted == 1
    assert isinstance(refused.error, Invalid)


def test_waits_grow_and_honour_what_the_server_asks() -> None:
    """Doubling up to the longest, half of it drawn; a longer Retry-After wins."""
    retries, lost = Retries(attempts=9, first_s=0.1, longest_s=0.5), Unreachable("")
    assert [retries.wait_s(n, lost, 0.0) for n in (1, 2, 3, 4, 5)] == pytest.approx(
        [0.05, 0.1, 0.2, 0.25, 0.25]
    )
    assert retries.wait_s(1, lost, 1.0) == pytest.approx(0.1)
    assert retries.wait_s(9, lost, 0.0) is None
