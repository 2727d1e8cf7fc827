"""Bodies in and out: bounded, strict JSON, with errors that name the field, value and limit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar, get_type_hints

import msgspec
from fastapi import Request, Response
from msgspec import inspect
from starlette.requests import ClientDisconnect

from app.errors import BodyInvalid, BodyTooLarge, ContentTypeWrong, FieldError, shown

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode
_PLACE = re.compile(r"^(?P<limit>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_LOOKED_AT, _LONGEST = 256, 300
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_REMEDIES = (
    ("missing required field", "Add this field."),
    ("unknown field", "Remove this field or correct its name."),
    ("JSON is malformed", "Send one valid JSON object in UTF-8."),
    ("truncated", "Send one valid JSON object in UTF-8."),
    ("datetime", "Write it as 2026-11-22T00:00:00Z, with the offset from UTC."),
    ("Number out of range", "Send a smaller number."),
)
_EXPECTED = re.compile(r"^Expected `([^`]*)`(, got)?")
_KINDS = {
    "int": "an integer",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def answer(content: object, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(_encode(content), status, media_type="application/json")


async def read(
    request: Request, decoder: msgspec.json.Decoder[_T], limit: int, *, optional: bool = False
) -> _T:
    """Read and decode a body of at most `limit` bytes; an `optional` one may be left out for `{}`.

    Raises `ContentTypeWrong`, `BodyTooLarge` and `BodyInvalid`.
    """
    headers = dict(request.scope["headers"])
    body = await _collect(request, headers.get(b"content-length", b""), limit)
    if optional and not body:
        return decoder.decode(b"{}")
    _check_type(headers)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _explained(error, body, decoder.type) from error


def refuse(field: str, value: object, limit: str, remedy: str) -> BodyInvalid:
    """The fault of one field."""
    fault = FieldError(field=field, value=shown(value), limit=limit, remedy=remedy)
    return BodyInvalid(f"{field}: {limit}. {remedy}", [fault])


def explain(error: Exception, body: bytes, kind: type) -> FieldError:
    """Name the field, value, limit and remedy of a body that msgspec refused."""
    if isinstance(error, RecursionError):
        limit, remedy = "it is nested too deeply", "Send flat values and lists."
        return FieldError(field="body", value=None, limit=limit, remedy=remedy)
    match = _PLACE.match(str(error))
    parts: Mapping[str, Any] = match.groupdict() if match else {"limit": str(error), "path": ""}
    limit = str(parts["limit"]).replace("`", "")
    field, value = _locate(parts.get("path") or "", body, kind)
    name = re.search(r"field `([^`]*)`", str(error))
    if name is not None:
        field, value = f"{field}.{name[1]}".lstrip("."), None
    if parts.get("key"):
        value = None
    remedy = _remedy(str(error))
    allowed = () if name or parts.get("key") else _allowed(kind, field)
    if allowed:
        limit, remedy = f"one of {', '.join(allowed)}", "Send one of them."
    # A name that the caller made up may be as long as the whole body.
    named, told = str(shown(field or "body")), limit[:_LONGEST]
    return FieldError(field=named, value=shown(value), limit=told, remedy=remedy)


def _check_type(headers: Mapping[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        # A kilobyte of it could be a gigabyte of JSON.
        raise ContentTypeWrong("the body is compressed; send it as it is, without Content-Encoding")
    declared = headers.get(b"content-type", b"")
    if declared == b"application/json":
        return
    text = declared.decode("latin-1")
    if text.partition(";")[0].strip().lower() != "application/json":
        raise ContentTypeWrong(
            f"the body is declared as {shown(text)!r}; send Content-Type: application/json"
        )


async def _collect(request: Request, declared: bytes, limit: int) -> bytes:
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:  # most bodies are there whole: an iterator around this would cost more than it
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> BodyTooLarge:
    fault = FieldError(
        field="body", value=None, limit=f"at most {limit} bytes", remedy="Send smaller batches."
    )
    return BodyTooLarge(f"the body is longer than {limit} bytes; send smaller batches", [fault])


def _explained(error: Exception, body: bytes, kind: type) -> BodyInvalid:
    fault = explain(error, body, kind)
    return BodyInvalid(f"{fault.field}: {fault.limit}", [fault])


def _remedy(message: str) -> str:
    known = next((text for mark, text in _REMEDIES if mark in message), None)
    expected = _EXPECTED.match(message)
    if known is not None or expected is None:
        return known or "Correct this value."
    *others, last = (_KINDS.get(kind, kind) for kind in expected[1].split(" | "))
    wanted = f"{', '.join(others)} or {last}" if others else last
    return f"Send {wanted}." if expected[2] else f"Send {wanted} within this limit."


def _allowed(kind: type, field: str) -> tuple[str, ...]:
    """The values of the enumeration that stands at this path; none where there is none."""
    place: inspect.Type | None = _described(kind)
    for step in _STEP.finditer(f".{field}"):
        place = _inside(place, step[1])
    return tuple(map(str, place.values)) if isinstance(place, inspect.LiteralType) else ()


@lru_cache(maxsize=64)
def _described(kind: type) -> inspect.Type:
    return inspect.type_info(kind)


def _inside(kind: inspect.Type | None, key: str | None) -> inspect.Type | None:
    if isinstance(kind, inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == key), None)
    return kind.item_type if isinstance(kind, inspect.ListType) and key is None else None


def _locate(path: str, body: bytes, kind: type) -> tuple[str, object]:
    """The readable name of a msgspec path and the value found there, if the body can be read."""
    try:
        place: Any = _LOOSE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return path.partition("[...]")[0].lstrip("."), None
    named = ""
    for step in _STEP.finditer(path):
        key, index = step.groups()
        if index == "...":
            key, index = _offender(place, kind, named.lstrip(".")), None
        try:
            place = place[int(index)] if index else place[key]
        except (KeyError, IndexError, TypeError):
            return path.lstrip("."), None
        named += f"[{index}]" if index else f".{key}"
    return named.lstrip("."), place


def _offender(mapping: dict[str, Any], kind: type, field: str) -> str:
    """The key of the first value that its map refuses; msgspec names the map but not the key."""
    huge = next((key for key, value in mapping.items() if _is_huge(value)), None)
    if huge is not None:
        return huge
    expected = get_type_hints(kind, include_extras=True).get(field)
    # Objects of values are short; what is longer was refused for that, and is not worth the time.
    for key, value in islice(mapping.items(), _LOOKED_AT) if expected else ():
        try:
            msgspec.convert({key: value}, expected)
        except msgspec.ValidationError:
            return key
    return next(iter(mapping))


def _is_huge(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, float) and math.isinf(item) for item in items)


# Without a hook of its own msgspec stops at a number above the largest float.
_LOOSE = msgspec.json.Decoder(float_hook=float)
