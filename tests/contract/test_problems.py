"""Every refusal is a problem document (RFC 9457), whatever refused it."""

from __future__ import annotations

import gzip
import inspect
from typing import Any

import pytest

from app import errors
from app.storage import errors as storage_errors
from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio

# These end a job or a command; over HTTP they can only mean a fault of ours, which is a 500.
NOT_FOR_CALLERS = {"StorageError", "MigrationsPending", "CursorMoved", "ClusterChanged", "LeadLost"}


REFUSALS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/v1/nothing", {}, 404),
    ("GET", "/v1/ads/404", {}, 404),
    ("PATCH", "/v1/ads/404", {"json": {"state": "paused"}}, 404),
    ("DELETE", "/v1/ads/1", {}, 405),
    ("GET", "/v1/ads/0", {}, 422),
    ("GET", "/v1/ads/seven", {}, 422),
    ("GET", "/v1/ads?limit=0", {}, 422),
    ("GET", "/v1/ads?limit=1001", {}, 422),
    ("GET", "/v1/ads?cursor=!", {}, 422),
    ("GET", "/v1/ads?state=asleep", {}, 422),
    ("GET", "/v1/ads?status=paused", {}, 422),
    ("GET", "/v1/ads/1?limit=2", {}, 422),
    (
        "PUT",
        "/v1/ads/1",
        {"content": b"x" * 50_001, "headers": {"content-type": "application/json"}},
        413,
    ),
    ("PUT", "/v1/ads/1", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
    ("PUT", "/v1/ads/1", {"content": b"{}"}, 415),
    ("PUT", "/v1/ads/1", {"json": {"id": 2, "campaign_id": 1, "bid_micros": 1}}, 422),
    ("PUT", "/v1/ads/1", {"json": {"campaign_id": 1, "bid_micros": -1}}, 422),
    ("PUT", "/v1/ads/1", {"json": {"campaign_id": 77, "bid_micros": 1}}, 422),
    ("PATCH", "/v1/ads/1", {"json": {}}, 422),
    ("GET", "/v1/snapshots/seven", {}, 404),
    ("POST", "/v1/retrains", {"json": {"step_size": False}}, 422),
    ("POST", "/v1/retrains", {"json": {"user_radius": 1e9}}, 422),
]


async def test_refusals_are_problem_documents(api: Api) -> None:
    """Status, content type and the members of a problem document."""
    for method, path, given, status in REFUSALS:
        answer = await api.call("admin", method, path, **given)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert set(problem) == {"type", "title", "status", "detail", "errors"}
        assert problem["status"] == status
        if status == 422:
            assert problem["errors"], problem
            assert set(problem["errors"][0]) == {"field", "value", "limit", "remedy"}


async def test_body_that_grows_past_the_limit_is_refused(api: Api) -> None:
    """A body without a declared length is counted while it arrives."""

    async def chunks():  # type: ignore[no-untyped-def]  # an async generator of bytes
        for _ in range(60):
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    answer = await api.client("admin").put("/v1/ads/1", content=chunks(), headers=headers)
    assert answer.status_code == 413


async def test_deep_nesting_is_refused(api: Api) -> None:
    """Brackets without end are an error of the caller."""
    headers = {"content-type": "application/json"}
    nested = b'{"campaign_id":1,"bid_micros":1,"features":{"category":' + b"[" * 20_000
    answer = await api.client("admin").put("/v1/ads/1", content=nested, headers=headers)
    assert answer.status_code == 422


async def test_unknown_parameter_is_told_the_known_ones(api: Api) -> None:
    """A misspelt filter is refused, or the list would look as if the filter had been obeyed."""
    for path, known in (
        ("ads", "limit, cursor, state, campaign_id, advertiser_id"),
        ("campaigns", "limit, cursor, state, advertiser_id"),
        ("snapshots", "limit, cursor"),
        ("retrains", "limit, cursor"),
    ):
        answer = await api.call("admin", "GET", f"/v1/{path}?status=paused")
        assert answer.status_code == 422
        [fault] = answer.json()["errors"]
        assert (fault["field"], fault["value"]) == ("query.status", "paused")
        assert fault["limit"] == f"the parameters are {known}"


@pytest.mark.parametrize(
    ("path", "field", "kind"),
    [("/v1/ads/1", "campaign_id", "campaign"), ("/v1/campaigns/1", "advertiser_id", "advertiser")],
)
async def test_unknown_parent_is_named(api: Api, path: str, field: str, kind: str) -> None:
    """The error has the caller's words, not those of the database."""
    body = {field: 999} | ({"bid_micros": 1} if kind == "campaign" else {})
    answer = await api.call("admin", "PUT", path, json=body)
    assert answer.status_code == 422
    limit, remedy = f"there is no such {kind}", f"Create the {kind} first."
    expected = {"field": field, "value": 999, "limit": limit, "remedy": remedy}
    assert answer.json()["errors"] == [expected]


@pytest.mark.parametrize(
    ("side", "time"),
    [("start", "0001-01-01T00:00:00+23:59"), ("end", "9999-12-31T23:59:59-23:59")],
)
async def test_flight_outside_of_the_calendar_is_refused(api: Api, side: str, time: str) -> None:
    """A time that only its offset moves out of the years 1 to 9999 is the caller's mistake."""
    body = {"campaign_id": 1, "bid_micros": 1, "flight": {side: time}}
    answer = await api.call("admin", "PUT", "/v1/ads/101", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"flight.{side}"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
async def test_first_and_last_time_are_kept(api: Api, time: str) -> None:
    """The ends of the calendar are stored and read back."""
    side = "start" if time.startswith("0") else "end"
    body = {"campaign_id": 1, "bid_micros": 1, "flight": {side: time}}
    answer = await api.call("admin", "PUT", "/v1/ads/101", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["ad"]["flight"][side] == time.replace(".999Z", ".999000Z")


async def test_refused_change_changes_nothing(api: Api) -> None:
    """After a refused body the ad is as it was."""
    before = (await api.call("admin", "GET", "/v1/ads/1")).json()
    bad = {"campaign_id": 2, "bid_micros": 5, "features": {"colour": "red"}}
    answer = await api.call("admin", "PUT", "/v1/ads/1", json=bad)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "features.colour"
    assert (await api.call("admin", "GET", "/v1/ads/1")).json() == before


def test_no_storage_error_is_unmapped() -> None:
    """Each error of the storage has a status, or is one that no call can raise."""
    kinds = [
        kind
        for kind in vars(storage_errors).values()
        if inspect.isclass(kind)
        and issubclass(kind, storage_errors.StorageError)
        and not issubclass(kind, storage_errors.EmbeddedError)
    ]
    unmapped = {kind.__name__ for kind in kinds if not set(kind.__mro__) & set(errors.TABLE)}
    assert unmapped <= NOT_FOR_CALLERS


async def test_compressed_body_is_refused(api: Api) -> None:
    """A small body that unpacks to a huge one is never unpacked."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    content = gzip.compress(b'{"user":{},"slots":1}')
    answer = await api.client("score").post("/v1/decisions", content=content, headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["detail"]


async def test_trouble_of_the_database_names_no_host() -> None:
    """What the driver says of users and addresses is for the log, not for callers."""
    error = storage_errors.DatabaseUnavailable("no password for user adscent at 10.0.0.5:5432")
    told = bytes(errors.answer_to(error).body).decode()
    assert "does not answer" in told
    assert "10.0.0.5" not in told
    assert "user" not in told
