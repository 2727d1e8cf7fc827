"""API keys: who calls, and whether the call is in the key's scopes.

Keys are random, so a plain SHA-256 protects them. They are checked against the worker's own copy
of the hashes, which the watcher refreshes, so a call is served while the database is away.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import structlog
from fastapi import Depends, Request

from app import metrics
from app.api.services import Services, services_of
from app.errors import NotReady, RateLimited, ScopeMissing, Unauthenticated
from app.serving.rates import Bucket
from app.serving.state import KeyHolder, Scope

_PREFIX = b"adscent_"
_log = structlog.get_logger(__name__)
_HOW = "send Authorization: Bearer adscent_…; `adscent keys create` makes a key"


def admit(request: Request, scope: Scope | None) -> Services:
    """Check the key of a request; `None` takes a key of any scope. Returns the services.

    Raises `Unauthenticated`, `ScopeMissing`, `RateLimited`, and `NotReady` before the keys are
    first loaded. Called once for each request: each call counts towards the key's rate.
    """
    services = services_of(request)
    holder = _holder(request, services)
    if holder.bucket is not None:
        _charge(holder, holder.bucket)
    if scope is not None and scope not in holder.scopes:
        held = ", ".join(sorted(holder.scopes)) or "none"
        raise ScopeMissing(f"this call needs the scope {scope}; the key {holder.name!r} has {held}")
    return services


def actor(request: Request) -> str:
    """The caller's name in the audit: the id of its key."""
    return f"key:{_holder(request, services_of(request)).key_id}"


def needs(scope: Scope | None) -> Callable[[Request], Awaitable[None]]:
    """A dependency that admits only keys of one scope."""

    async def check(request: Request) -> None:
        admit(request, scope)

    return check


Actor = Annotated[str, Depends(actor)]


def _holder(request: Request, services: Services) -> KeyHolder:
    given = _secret(request)
    # Looked up by the hash of the secret, so the time of the look-up tells nothing about a key.
    digest = hashlib.sha256(given).digest()
    holder = services.state.keys.get(digest)
    if holder is not None and (holder.expires_s is None or time.time() < holder.expires_s):
        return holder
    if not services.state.keys_loaded:
        raise NotReady("the API keys are not loaded yet: the database has not answered so far")
    raise Unauthenticated(f"this API key is unknown, revoked or expired; {_HOW}")


def _charge(holder: KeyHolder, bucket: Bucket) -> None:
    """Count a request of this key; the first of a row of refusals is logged."""
    refused = bucket.refused
    wait_s = bucket.wait_s(time.monotonic())
    if wait_s == 0.0:
        return
    metrics.RATE_LIMITED.inc()
    if refused == 0:
        _log.warning("key_rate_limited", key_id=holder.key_id, requests_per_s=bucket.rate)
    raise RateLimited(
        f"the key {holder.name!r} may send {bucket.rate:g} requests a second to each worker;"
        " send fewer, or let `adscent keys limit` allow more",
        wait_s,
    )


def _secret(request: Request) -> bytes:
    # Of headers sent twice the first one counts.
    headers: dict[bytes, bytes] = dict(reversed(request.scope["headers"]))
    header = headers.get(b"authorization")
    if header is None:
        key = headers.get(b"x-api-key", b"")
    else:
        scheme, _, key = header.partition(b" ")
        key = key.strip() if scheme.lower() == b"bearer" else b""
    if not key.startswith(_PREFIX):
        raise Unauthenticated(f"no API key was sent; {_HOW}")
    return key
