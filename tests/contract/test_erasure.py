"""Erasing a value of a user over HTTP: at once for requests and events, and told without it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from models.features import Encoder, unpack
from tests.contract.conftest import Api

pytestmark = pytest.mark.anyio
CANADA = {"user": {"geo": "ca", "age": 20}, "slots": 1}


async def _decide(api: Api) -> dict[str, Any]:
    answer = await api.call("score", "POST", "/v1/decisions", json=CANADA)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["ads"][0]
    return found


async def _stored_user_ids(api: Api, encoder: Encoder) -> list[list[int]]:
    async with api.database.begin() as connection:
        query = sa.text("SELECT features FROM events WHERE type = 'impression' ORDER BY xid")
        blobs = list((await connection.execute(query)).scalars())
    user, _ = unpack(encoder.schema, blobs)
    return [user.rows(row, row + 1).ids.tolist() for row in range(len(blobs))]


async def test_an_erasure_is_acknowledged_by_the_worker(api: Api) -> None:
    """200 names the workers that have applied it; a second call finds the same tombstone."""
    first = await api.call("admin", "DELETE", "/v1/users/geo/ca")
    assert first.status_code == 200
    found = first.json()
    assert (found["feature"], found["version"], len(found["acknowledged"])) == ("user.geo", 1, 1)
    assert (found["pending"], found["events"], found["events_at"]) == ([], 0, None)
    again = await api.call("admin", "DELETE", "/v1/users/user.geo/ca")
    assert again.json() == found
    read = await api.call("admin", "GET", "/v1/users/geo/ca")
    assert read.json() == found


async def test_an_erased_value_is_encoded_as_missing(api: Api, encoder: Encoder) -> None:
    """A request that sends it again is answered, and what it is learned by does not have it."""
    await api.call("admin", "DELETE", "/v1/users/geo/ca")
    token = (await _decide(api))["token"]
    tokens = api.app.state.services.state.tokens
    user, _ = unpack(encoder.schema, [tokens.read(token).features])
    assert user.ids.tolist() == encoder.encode_user({"age": 20}).ids.tolist()


async def test_a_token_in_flight_is_stored_without_the_value(api: Api, encoder: Encoder) -> None:
    """The event of a decision from before the erasure keeps all its other features."""
    token = (await _decide(api))["token"]
    await api.call("admin", "DELETE", "/v1/users/geo/ca")
    events = {"events": [{"type": "impression", "token": token}, {"type": "click", "token": token}]}
    answer = await api.call("ingest", "POST", "/v1/events", json=events)
    assert answer.json()["accepted"] == 2
    wanted = encoder.encode_user({"age": 20}).ids.tolist()
    assert await _stored_user_ids(api, encoder) == [wanted]


async def test_recent_queries_with_the_value_are_forgotten(api: Api) -> None:
    """What warms the next snapshot holds no erased value; other queries stay."""
    await _decide(api)
    await api.call("score", "POST", "/v1/decisions", json={"user": {"geo": "us"}, "slots": 1})
    await api.call("admin", "DELETE", "/v1/users/geo/ca")
    recorded = api.app.state.services.state.recorded
    assert [query.user for query in recorded] == [{"geo": "us"}]


async def test_the_audit_has_the_hash_and_not_the_value(api: Api) -> None:
    """Who erased what, and when; the value itself is in no table."""
    value = "an unusual place"
    found = (await api.call("admin", "DELETE", f"/v1/users/geo/{quote(value)}")).json()
    async with api.database.begin() as connection:
        row = (
            await connection.execute(sa.text("SELECT * FROM audit WHERE action = 'erase'"))
        ).one()
        rest = [
            str((await connection.execute(sa.text(f"SELECT * FROM {name}"))).all())  # noqa: S608
            for name in ("audit", "erasures", "workers")
        ]
    assert row.subject == f"user.geo:{found['hash']}"
    assert row.actor.startswith("key:")
    assert not any(value in text for text in rest)


@pytest.mark.parametrize("value", ["a/b", "ü ñ", "line\nbreak", "%41", "true", "7"])
async def test_any_text_can_be_erased(api: Api, encoder: Encoder, value: str) -> None:
    """The address holds the value escaped, whatever is in it."""
    answer = await api.call("admin", "DELETE", f"/v1/users/geo/{quote(value, safe='')}")
    assert answer.status_code == 200
    expected = int(encoder.encode_user({"geo": value}).ids[0]) % 2**64
    assert answer.json()["hash"] == f"{expected:016x}"


@pytest.mark.parametrize("path", ["geo/", "age/20", "colour/red", "category/shoes"])
async def test_what_is_no_persons_is_refused(api: Api, path: str) -> None:
    """No value, a bucket of a number, features that users do not have."""
    answer = await api.call("admin", "DELETE", f"/v1/users/{path}")
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["remedy"]


async def test_what_was_not_erased_is_not_found(api: Api) -> None:
    """Reading tells nothing about values, only about erasures."""
    assert (await api.call("admin", "GET", "/v1/users/geo/ca")).status_code == 404


async def test_only_the_admin_erases(api: Api) -> None:
    """Keys of the other scopes may not."""
    for scope in ("score", "ingest"):
        assert (await api.call(scope, "DELETE", "/v1/users/geo/ca")).status_code == 403
