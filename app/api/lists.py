"""Pages of lists: a limit and an opaque cursor."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec
from fastapi import Path, Query, Request

from app.api.body import refuse
from models.types import MAX_ID

_T = TypeVar("_T")

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items of one page")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of a page before")]
IdInPath = Annotated[int, Path(ge=1, le=MAX_ID)]
IdInQuery = Annotated[int | None, Query(ge=1, le=MAX_ID)]


def after_id(cursor: str | None) -> int | None:
    """The id after which the page starts. Raises `BodyInvalid` for a cursor not made here."""
    text = _opened(cursor)
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MAX_ID:
        raise foreign(cursor)
    return int(text)


def after_uuid(cursor: str | None) -> UUID | None:
    """The UUID after which the page starts. Raises `BodyInvalid` for a cursor not made here."""
    text = _opened(cursor)
    try:
        return None if text is None else UUID(text)
    except ValueError as error:
        raise foreign(cursor) from error


def after_name(cursor: str | None) -> str | None:
    """The name after which the page starts. Raises `BodyInvalid` for a cursor not made here."""
    text = _opened(cursor)
    if text is not None and not text.isprintable():
        raise foreign(cursor)
    return text


def after_parts(cursor: str | None) -> list[str] | None:
    """The texts after which the page starts. Raises `BodyInvalid` for a cursor not made here."""
    text = _opened(cursor)
    try:
        return None if text is None else msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError as error:
        raise foreign(cursor) from error


def cursor_of(parts: Sequence[str]) -> str:
    """The cursor that `after_parts` opens."""
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def page(found: Sequence[_T], limit: int, key: str = "id") -> tuple[Sequence[_T], str | None]:
    """Cut `limit + 1` found rows to a page and the cursor of the next one, if there is one."""
    if len(found) <= limit:
        return found, None
    kept = found[:limit]
    last = str(getattr(kept[-1], key))
    return kept, base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


async def check_query(request: Request) -> None:
    """Raise `BodyInvalid` for a query parameter that the call does not have."""
    dependant = request.scope["route"].dependant
    known = [parameter.alias for parameter in dependant.query_params]
    for name, value in request.query_params.items():
        if name not in known:
            limit = f"the parameters are {', '.join(known)}" if known else "there are no parameters"
            raise refuse(f"query.{name}", value, limit, "Remove it or correct its name.")


def _opened(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise foreign(cursor) from error


def foreign(cursor: str | None) -> Exception:
    """The fault of a cursor that was not made for this list."""
    remedy = "Pass next_cursor unchanged, or leave it out for the first page."
    return refuse("query.cursor", cursor, "it is not a cursor of this list", remedy)
