"""Which request, decision and snapshot a line of the log belongs to.

A caller may name its request in `X-Request-Id`; the answer always carries one. Both the log and the
traces have it, so a complaint that quotes it can be followed.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any
from uuid import UUID

HEADER = b"x-request-id"
_GIVEN = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
"""What is taken from a caller: nothing that could end a header, a line or a string."""


class Ids:
    """The ids of one request; a handler adds those of what it decided."""

    __slots__ = ("decision_id", "request_id", "snapshot_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.decision_id: UUID | None = None
        self.snapshot_id: UUID | None = None


class _Names:
    """Ids that no other process gives: a random part for each process, then a count."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Forget what a process that this one was forked from would give as well."""
        self._process, self._count = secrets.token_hex(6), itertools.count(1)

    def following(self) -> str:
        """The next id."""
        return f"{self._process}-{next(self._count):x}"


_current: ContextVar[Ids | None] = ContextVar("request_ids", default=None)
_names = _Names()
os.register_at_fork(after_in_child=_names.renew)


def begin(headers: Iterable[tuple[bytes, bytes]]) -> Ids:
    """The ids of a request with these headers: its caller's id where it is usable, else ours."""
    given = None
    for name, value in headers:
        if name == HEADER:
            given = value
    if given is not None and _GIVEN.fullmatch(given):
        ids = Ids(given.decode("ascii"))
    else:
        ids = Ids(_names.following())
    _current.set(ids)
    return ids


def current() -> Ids | None:
    """The ids of the request that is being answered; None outside of one."""
    return _current.get()


def note(decision_id: UUID | None, snapshot_id: UUID) -> None:
    """Say what the present request decided, and with which snapshot."""
    ids = _current.get()
    if ids is not None:
        ids.decision_id, ids.snapshot_id = decision_id, snapshot_id


def add_to(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor of the log that adds the ids there are to what is said during a request."""
    ids = _current.get()
    if ids is not None:
        event.setdefault("request_id", ids.request_id)
        for name, value in (("decision_id", ids.decision_id), ("snapshot_id", ids.snapshot_id)):
            if value is not None:
                event.setdefault(name, str(value))
    return event
