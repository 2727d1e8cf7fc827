"""Refused bodies: the error names the field, the value, the limit and the remedy."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.ad_document import ad_of, ad_view
from app.api.body import explain
from app.api.lists import after_id, after_uuid, page
from app.api.schemas import AdBody, DecisionRequest, EventsRequest, ScoreRequest
from app.errors import BodyInvalid, FieldError
from models.errors import FeatureUnknown, FeatureValueInvalid, InvalidInput
from models.features import Encoder, parse_schema
from models.types import MAX_ID, Advertiser

SCHEMA = """
version = 1
[user.geo]
kind = "categorical"
[user.age]
kind = "numeric"
edges = [18, 30]
[ad.creative]
kind = "categorical"
[ad.category]
kind = "multi"
[ad.price]
kind = "numeric"
edges = [10, 20]
"""
AD = {"id": 1, "campaign_id": 7, "bid_micros": 350_000}


@pytest.fixture
def encoder() -> Encoder:
    """The encoder of a small schema."""
    return Encoder(parse_schema(SCHEMA))


def _fault(kind: type, text: str) -> FieldError:
    body = text.encode()
    with pytest.raises(msgspec.DecodeError) as raised:
        msgspec.json.decode(body, type=kind)
    return explain(raised.value, body, kind)


@pytest.mark.parametrize(
    ("kind", "text", "field", "value", "limit"),
    [
        (ScoreRequest, '{"user": {}, "ad_ids": [3, 0]}', "ad_ids[1]", 0, ">= 1"),
        (ScoreRequest, '{"user": {}, "ad_ids": [true]}', "ad_ids[0]", True, "got bool"),
        (ScoreRequest, '{"user": {}, "ad_ids": [1.0]}', "ad_ids[0]", 1.0, "got float"),
        (
            ScoreRequest,
            f'{{"user": {{}}, "ad_ids": [{2**53}]}}',
            "ad_ids[0]",
            "a huge integer",
            "<=",
        ),
        (ScoreRequest, '{"user": {}, "ad_ids": []}', "ad_ids", "[]", "length >= 1"),
        (ScoreRequest, '{"user": {}}', "ad_ids", None, "missing"),
        (ScoreRequest, '{"user": {}, "ad_ids": [1], "colour": 1}', "colour", None, "unknown"),
        (ScoreRequest, '{"user": {"geo": "us", "x": {}}, "ad_ids": [1]}', "user.x", "{}", "object"),
        (ScoreRequest, '{"user": {"a": 1, "x": [[]]}, "ad_ids": [1]}', "user.x[0]", "[]", "array"),
        (DecisionRequest, '{"user": {}, "slots": 51}', "slots", 51, "<= 50"),
        (DecisionRequest, '{"user": {}, "slots": 0}', "slots", 0, ">= 1"),
        (DecisionRequest, '{"user": {}, "slots": false}', "slots", False, "got bool"),
        (
            DecisionRequest,
            '{"user": {}, "slots": 1, "floor_micros": -1}',
            "floor_micros",
            -1,
            ">= 0",
        ),
        (
            EventsRequest,
            '{"events": [{"type": "view", "token": ""}]}',
            "events[0].type",
            "view",
            "one of click, close, conversion, impression",
        ),
        (AdBody, '{"campaign_id": 1, "bid_micros": -5}', "bid_micros", -5, ">= 1"),
        (
            AdBody,
            '{"campaign_id": 1, "bid_micros": 1, "creative": {"a": "b", "c": 1}}',
            "creative.c",
            1,
            "str",
        ),
        (
            AdBody,
            '{"campaign_id": 1e999, "bid_micros": 1}',
            "campaign_id",
            "a huge number",
            "range",
        ),
        (
            ScoreRequest,
            '{"user": {"a": 1.5, "b": 1e999}, "ad_ids": [1]}',
            "user.b",
            "a huge number",
            "range",
        ),
        (
            AdBody,
            '{"campaign_id": 1, "bid_micros": 1, "state": "on"}',
            "state",
            "on",
            "one of active, paused, retired",
        ),
        (ScoreRequest, '{"user": NaN}', "body", None, "malformed"),
        (ScoreRequest, "", "body", None, "truncated"),
        (ScoreRequest, "[]", "body", "[]", "object"),
    ],
)
def test_refused_body_names_the_field(
    kind: type, text: str, field: str, value: object, limit: str
) -> None:
    """The path, the value found there and the bound are in the error, with a remedy."""
    fault = _fault(kind, text)
    assert (fault.field, fault.value) == (field, value)
    assert limit in fault.limit
    assert fault.remedy


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('{"user": {}, "ad_ids": ["1"]}', "Send an integer."),
        ('{"user": {}, "ad_ids": [0]}', "Send an integer within this limit."),
        ('{"user": {}, "ad_ids": null}', "Send a list."),
        ('{"user": {}, "ad_ids": [1e999]}', "Send a smaller number."),
    ],
)
def test_remedy_says_what_to_send(text: str, remedy: str) -> None:
    """The remedy of a wrong type names the right one."""
    assert _fault(ScoreRequest, text).remedy == remedy


def test_endless_nesting_names_a_field() -> None:
    """Nesting too deep to be read for its value still has the name of a field."""
    nested = "[" * 5000 + "]" * 5000
    text = f'{{"campaign_id": 1, "bid_micros": 1, "features": {{"x": {nested}}}}}'
    assert _fault(AdBody, text).field == "features"
    assert explain(RecursionError("deep"), b"", AdBody).field == "body"


def test_features_from_the_ids_are_not_offered(encoder: Encoder) -> None:
    """An unknown feature of an ad is told the features that a document may give."""
    with pytest.raises(FeatureUnknown) as raised:
        ad_of(_body(features={"colour": "red"}), encoder)
    assert raised.value.limit == "the features of an ad are category, price"


def test_too_long_feature_text_is_refused() -> None:
    """A feature's text has at most 256 characters, and the error does not echo it whole."""
    fault = _fault(ScoreRequest, json.dumps({"user": {"geo": "x" * 257}, "ad_ids": [1]}))
    assert fault.field == "user.geo"
    assert "256" in fault.limit
    assert len(str(fault.value)) <= 80


def test_too_many_ads_are_refused() -> None:
    """One request scores at most 1,000 ads."""
    fault = _fault(ScoreRequest, json.dumps({"user": {}, "ad_ids": [1] * 1001}))
    assert fault.field == "ad_ids"
    assert "1000" in fault.limit


@given(st.binary(max_size=200))
def test_any_bytes_are_explained(body: bytes) -> None:
    """Whatever cannot be decoded gets an explanation, never another error."""
    found: Exception | None = None
    try:
        msgspec.json.decode(body, type=ScoreRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        found = error
    assert found is None or explain(found, body, ScoreRequest).limit


def _body(**changes: object) -> AdBody:
    return msgspec.convert({**AD, **changes}, AdBody)


def test_ad_survives_the_way_there_and_back(encoder: Encoder) -> None:
    """An ad's document is what was given, defaults filled in."""
    given_body = _body(
        features={"category": ["shoes", "running"], "price": 12.5},
        targeting={"all": [{"user.geo": ["us"]}, {"user.age": {"min": 18}}]},
        flight={"start": "2026-11-22T00:00:00.500Z", "end": None},
        creative={"title": "t", "landing_url": "https://example.com"},
    )
    view = ad_view(ad_of(given_body, encoder))
    assert view.features == given_body.features
    assert msgspec.to_builtins(view.targeting) == {
        "all": [{"user.geo": ["us"]}, {"user.age": {"min": 18.0}}]
    }
    assert view.flight == given_body.flight
    assert view.creative == given_body.creative


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"features": {"colour": "red"}}, FeatureUnknown, "features.colour"),
        ({"features": {"price": "dear"}}, FeatureValueInvalid, "features.price"),
        ({"features": {"creative": 1}}, BodyInvalid, "features.creative"),
        (
            {"targeting": {"any": [{"user.city": ["x"]}]}},
            FeatureUnknown,
            "targeting.any[0].user.city",
        ),
        ({"targeting": {"all": [{"geo": ["x"]}]}}, InvalidInput, "targeting.all[0].geo"),
        ({"targeting": {"all": [{"user.age": {}}]}}, InvalidInput, "targeting.all[0].user.age"),
        (
            {"targeting": {"none": [{"user.geo": {"min": 3}}]}},
            BodyInvalid,
            "targeting.none[0].user.geo",
        ),
        ({"flight": {"start": "0001-01-01T00:00:00+23:59"}}, BodyInvalid, "flight.start"),
        ({"flight": {"end": "9999-12-31T23:59:59-23:59"}}, BodyInvalid, "flight.end"),
        ({"features": {"category": ["a", "b\0"]}}, BodyInvalid, "features.category"),
        ({"targeting": {"all": [{"user.geo": ["\0"]}]}}, BodyInvalid, "targeting.all[0].user.geo"),
        ({"creative": {"landing_url": "javascript:alert(1)"}}, BodyInvalid, "creative.landing_url"),
        (
            {"flight": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}},
            BodyInvalid,
            "flight.end",
        ),
    ],
)
def test_ad_that_breaks_a_rule_names_the_field(
    encoder: Encoder, changes: dict[str, object], error: type[Exception], field: str
) -> None:
    """What the types cannot say is checked too, with the path of the field."""
    with pytest.raises(error) as raised:
        ad_of(_body(**changes), encoder)
    found = getattr(raised.value, "field", None) or raised.value.errors[0].field
    assert found == field


def test_id_of_body_and_address_must_agree(encoder: Encoder) -> None:
    """A document with another id than its address is refused."""
    with pytest.raises(BodyInvalid, match="the address names 2"):
        ad_of(_body(), encoder, 2)


@given(st.lists(st.integers(1, MAX_ID), min_size=2, unique=True))
def test_cursor_leads_to_the_next_page(ids: list[int]) -> None:
    """A page's cursor opens to the last id of that page."""
    rows = [Advertiser(row) for row in sorted(ids)]
    kept, cursor = page(rows, len(rows) - 1)
    assert after_id(cursor) == kept[-1].id


def test_last_page_has_no_cursor() -> None:
    """When everything fits there is nothing to go on to."""
    assert page([Advertiser(1)], 1) == ([Advertiser(1)], None)


@pytest.mark.parametrize("cursor", ["", "!", "AAA", "MA", "LTE", "c2hvZXM", "é", "=="])
def test_foreign_cursor_is_refused(cursor: str) -> None:
    """A cursor that no list made is an error, not an empty page."""
    for opened in (after_id, after_uuid):
        with pytest.raises(BodyInvalid, match="not a cursor"):
            opened(cursor)
