"""The one table from errors to HTTP answers (problem details, RFC 9457); the API's own faults."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.storage import errors as storage
from models.errors import InvalidInput, ModelError, SnapshotCorrupt

PROBLEM_TYPE = "application/problem+json"
_log = structlog.get_logger(__name__)


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One value that a caller has to mend."""

    field: str
    value: str | int | float | bool | None
    limit: str
    remedy: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class RequestFault(Exception):
    """Root of the faults of a request itself; `errors` names the fields at fault."""

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = list(errors)


class BodyInvalid(RequestFault):
    """The body or a parameter breaks its schema."""


class BodyTooLarge(RequestFault):
    """The body is longer than the server takes."""


class TooSlow(RequestFault):
    """The request did not arrive in time."""


class HeadTooLarge(RequestFault):
    """The request line and headers are longer than the server takes."""


class ContentTypeWrong(RequestFault):
    """The body is not declared as JSON."""


class Unauthenticated(RequestFault):
    """No key, or one that is unknown or revoked."""


class ScopeMissing(RequestFault):
    """The key is good but not for this call."""


class RateLimited(RequestFault):
    """The key's requests of this moment are used up; `retry_after_s`: until the next one."""

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NotReady(RequestFault):
    """No bundle is loaded yet."""


class Overloaded(RequestFault):
    """The answer would come too late: others are served first."""


class LinkInvalid(RequestFault):
    """A click's address that leads nowhere: a token that is not ours, or an ad without a page."""


class PromotionRefused(RequestFault):
    """The snapshot may not serve."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)


_SOON = {"Retry-After": "1"}

TABLE: Mapping[type[Exception], _Answer] = {
    BodyInvalid: _Answer(HTTPStatus.UNPROCESSABLE_ENTITY, "The request is not valid"),
    ClientDisconnect: _Answer(HTTPStatus.BAD_REQUEST, "The request ended before its end"),
    BodyTooLarge: _Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    TooSlow: _Answer(HTTPStatus.REQUEST_TIMEOUT, "The request came too slowly"),
    HeadTooLarge: _Answer(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large"
    ),
    ContentTypeWrong: _Answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON"),
    Unauthenticated: _Answer(
        HTTPStatus.UNAUTHORIZED, "An API key is needed", {"WWW-Authenticate": "Bearer"}
    ),
    ScopeMissing: _Answer(HTTPStatus.FORBIDDEN, "The API key lacks a scope"),
    RateLimited: _Answer(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests with this API key"),
    NotReady: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "The server is not ready", _SOON),
    Overloaded: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests at once", _SOON),
    PromotionRefused: _Answer(HTTPStatus.CONFLICT, "This snapshot may not serve"),
    SnapshotCorrupt: _Answer(HTTPStatus.CONFLICT, "This snapshot may not serve"),
    InvalidInput: _Answer(HTTPStatus.UNPROCESSABLE_ENTITY, "The request is not valid"),
    LinkInvalid: _Answer(HTTPStatus.NOT_FOUND, "This link leads nowhere"),
    storage.NotFound: _Answer(HTTPStatus.NOT_FOUND, "Not found"),
    storage.Conflict: _Answer(HTTPStatus.CONFLICT, "The change is not possible now"),
    storage.ClusterChanged: _Answer(HTTPStatus.CONFLICT, "The database was restored"),
    storage.ConstraintBroken: _Answer(HTTPStatus.UNPROCESSABLE_ENTITY, "The request is not valid"),
    storage.BufferFull: _Answer(HTTPStatus.SERVICE_UNAVAILABLE, "Too many events at once", _SOON),
    storage.StoreUnavailable: _Answer(
        HTTPStatus.SERVICE_UNAVAILABLE, "The snapshot store is not reachable", _SOON
    ),
    storage.DatabaseUnavailable: _Answer(
        HTTPStatus.SERVICE_UNAVAILABLE, "The database is not reachable", _SOON
    ),
}


KNOWN = tuple(TABLE)
"""The errors that `answer_to` takes, those derived from them included."""


def install(app: FastAPI) -> None:
    """Let every error leave the application as a problem document."""
    for kind in TABLE:
        app.add_exception_handler(kind, _render_known)
    app.add_exception_handler(HTTPException, _render_http)
    app.add_exception_handler(RequestValidationError, _render_parameters)
    for kind in (storage.StorageError, ModelError, Exception):
        app.add_exception_handler(kind, answer_to_unknown)


def problem(
    kind: str,
    title: str,
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document; `kind` becomes the last part of its type, `urn:problem:adscent:kind`."""
    body = Problem(
        type=f"urn:problem:adscent:{kind}",
        title=title,
        status=status,
        detail=detail,
        errors=list(errors),
    )
    return Response(msgspec.json.encode(body), status, headers, PROBLEM_TYPE)


def shown(value: object) -> str | int | float | bool | None:
    """A refused value, cut so that an error never echoes a whole body."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a huge number" if math.isinf(value) else "not a number"  # JSON has neither
    if value is None or isinstance(value, bool | int | float):
        return value if not isinstance(value, int) or abs(value) < 2**53 else "a huge integer"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def answer_to(error: Exception) -> Response:
    """The problem document of one of the errors of `TABLE`."""
    kind = next(kind for kind in type(error).__mro__ if kind in TABLE)
    answer = TABLE[kind]
    return problem(
        _kebab(type(error).__name__),
        answer.title,
        answer.status,
        _detail_of(error),
        _fields_of(error),
        _headers_of(error, answer),
    )


def _render_known(_request: Request, error: Exception) -> Response:
    return answer_to(error)


def _detail_of(error: Exception) -> str:
    # What the driver says names hosts and users; the watcher logs it, a caller has no use for it.
    is_away = isinstance(error, storage.DatabaseUnavailable)
    return "the database does not answer; repeat later" if is_away else str(error)


def _headers_of(error: Exception, answer: _Answer) -> Mapping[str, str]:
    if isinstance(error, RateLimited):
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    return answer.headers


def _fields_of(error: Exception) -> list[FieldError]:
    if isinstance(error, RequestFault):
        return error.errors
    if not hasattr(error, "field"):
        return []
    named: Any = error
    return [
        FieldError(
            field=named.field,
            value=shown(getattr(named, "value", None)),
            limit=str(getattr(named, "limit", error)),
            remedy=str(getattr(named, "remedy", "Correct this value.")),
        )
    ]


def _render_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class alone
    title = HTTPStatus(error.status_code).phrase
    kind = title.lower().replace(" ", "-")
    return problem(kind, title, error.status_code, str(error.detail), headers=error.headers)


def _render_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it alone
    faults = [
        FieldError(
            field=".".join(map(str, fault["loc"])),
            value=shown(fault.get("input")),
            limit=str(fault["msg"]),
            remedy="Correct this parameter or leave it out.",
        )
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault.field}: {fault.limit}" for fault in faults)
    return answer_to(BodyInvalid(detail, faults))


def answer_to_unknown(request: Request, error: Exception) -> Response:
    """The answer to an error that nobody foresaw; its cause goes to the log."""
    # The route, not the path: a browser's link has a token in it.
    route = getattr(request.scope.get("route"), "path", "unmatched")
    _log.error("unexpected_error", route=route, exc_info=error)
    detail = "The server failed; its log has the cause. The request may be sent again."
    return problem("internal", "Internal error", HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
