"""The OpenAPI document: made from the very types that requests are decoded with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi

from app.api import lifecycle_views, schemas, views
from app.api.examples import EXAMPLES
from app.api.lists import check_query
from app.connection.overload import parameter
from app.errors import PROBLEM_TYPE, Problem
from app.serving.explaining import Explanation
from app.serving.pipeline import Decision
from app.serving.state import Scope

_REF = "#/components/schemas/{name}"
_TITLES = {
    401: "No API key, or one that is unknown, revoked or expired",
    403: "The key lacks the scope",
    404: "Not found",
    409: "The change contradicts what is stored",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A value is not valid; `errors` names the field, the value, the limit and the remedy",
    429: "The key's rate is used up; Retry-After says when to come back",
    503: "Not ready, the database is away, or too busy; Retry-After says when to come back",
}

_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to come back.",
        "schema": {"type": "integer", "minimum": 0},
    }
}
_TOO_BUSY = {
    "type": "urn:problem:adscent:overloaded",
    "title": "Too many requests at once",
    "status": 503,
    "detail": "there are too many requests to answer this one within its deadline",
    "errors": [],
}
_TOO_OFTEN = {
    "type": "urn:problem:adscent:rate-limited",
    "title": "Too many requests with this API key",
    "status": 429,
    "detail": "the key may send 100 requests a second; come back in 1 s",
    "errors": [],
}
_COME_BACK = {429: _TOO_OFTEN, 503: _TOO_BUSY}
"""Examples of the problems that pass by themselves."""


def operation(
    *,
    summary: str,
    scope: Scope | None,
    answers: Mapping[int, type],
    body: type | None = None,
    example: object = None,
    faults: tuple[int, ...] = (),
    body_required: bool = True,
    has_deadline: bool = False,
) -> dict[str, Any]:
    """The arguments that describe one call to a router's decorator.

    `answers`: the type of each success; `faults`: statuses beyond those that every call with a key,
    parameters or a body has; `has_deadline`: whether it takes `X-Deadline-Ms`.
    """
    codes = {401, 403, 422, 429, 503, *faults, *((413, 415) if body else ())}
    responses: dict[int | str, dict[str, Any]] = {
        code: _content(kind, "application/json") for code, kind in answers.items()
    }
    responses |= {code: fault(code) for code in sorted(codes)}
    extra: dict[str, Any] = {"security": [{"key": []}], "x-scope": scope or "any"}
    if body is not None:
        content: dict[str, Any] = {"schema": _reference(body), "example": example}
        extra["requestBody"] = {
            "required": body_required,
            "content": {"application/json": content},
        }
    if has_deadline:
        extra["parameters"] = [parameter()]
    described = f"Needs a key with the scope `{scope}`." if scope else "Needs any key."
    # Calls with a body take no parameters; the fastest are spared the dependency.
    checks = [] if body else [Depends(check_query)]
    return {
        "summary": summary,
        "dependencies": checks,
        "description": described,
        "responses": responses,
        "openapi_extra": extra,
        "status_code": min(answers),
    }


def install(app: FastAPI) -> None:
    """Make `app.openapi()` include the types' schemas and the ways to send a key."""
    document: dict[str, Any] = {}

    def build() -> dict[str, Any]:
        if not document:
            document.update(_document(app))
        return document

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    parts = document.setdefault("components", {})
    kinds = [
        kind
        for kind in (vars(schemas) | vars(views) | vars(lifecycle_views)).values()
        if isinstance(kind, type) and issubclass(kind, schemas.Body | schemas.Answer)
    ]
    _, components = msgspec.json.schema_components(
        [*kinds, Decision, Explanation, Problem], ref_template=_REF
    )
    parts["schemas"] = {**parts.get("schemas", {}), **components}
    _show_examples(document)
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _show_examples(document: dict[str, Any]) -> None:
    """Add the examples of answers here: on the way through FastAPI they would lose their nulls."""
    shown = {_reference(kind)["$ref"]: example for kind, example in EXAMPLES.items()}
    problem = _reference(Problem)["$ref"]
    calls = (call for methods in document["paths"].values() for call in methods.values())
    answers = (one for call in calls for one in call["responses"].items())
    for code, described in answers:
        for content in described.get("content", {}).values():
            kind = content["schema"].get("$ref")
            if kind in shown:
                passing = _COME_BACK.get(int(code)) if kind == problem else None
                content["example"] = passing or shown[kind]


def _content(kind: type, media: str) -> dict[str, Any]:
    described = (kind.__doc__ or "").partition("\n")[0]
    return {"description": described, "content": {media: {"schema": _reference(kind)}}}


def fault(code: int) -> dict[str, Any]:
    """How a call describes its answer with a problem of this status."""
    described = {**_content(Problem, PROBLEM_TYPE), "description": _TITLES[code]}
    return {**described, "headers": _RETRY_AFTER} if code in _COME_BACK else described


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
