"""Refusing what could not be answered in time, early and cheaply.

One thread runs every handler of a worker, from start to end. Once a handler runs, its request waits
for nothing more, so whether the answer will be in time is known then from two figures: how long the
request has waited (`app.connection.arrival`) and how long such a handler takes.

A refusal at that point costs a good part of an answer, all of it HTTP: at three times the capacity
a worker would do little else. So requests are looked at as soon as they are read too. The event
loop reads every socket that has data and then runs the handlers in the same order, so a request's
place among those read in one turn tells how long it is going to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

from starlette.responses import Response
from starlette.types import Scope

from app import errors, metrics

ARRIVED = "arrived_s"
"""Where in a request's state its arrival stands, in seconds of `time.perf_counter`."""
DEADLINE_HEADER = "X-Deadline-Ms"
LONGEST_MS = 60_000

_HEADER = DEADLINE_HEADER.lower().encode()
_WAITING = 0.5
"""Part of the time left beside the handler's own that may pass in waiting. The rest is for what the
server does not see: the ways there and back, and the caller's own delay."""
_FIRST_GUESS_S = 0.0005
_MANY = 8
"""From so many handlers in one turn on, its length tells what one of them costs."""
_NO_WAIT_S = 0.002
"""A shorter wait is not looked at before the handler's turn."""
_STEP = 1.02
_LONGEST_START, _DIGITS = 64, 9
DETAILS = {
    "late": "the deadline had passed when the request's turn came",
    "busy": "there are too many requests to answer this one within its deadline",
}
"""What a refusal says, by its reason."""


class Limiter:
    """Decides which requests are still worth answering.

    `paths`: the calls it decides about; `deadline_s`: the deadline, from the arrival of a request,
    where `X-Deadline-Ms` does not give one.
    """

    def __init__(self, paths: Iterable[str], deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._usual_s = dict.fromkeys(paths, _FIRST_GUESS_S)
        self._paths = {f"POST {path}".encode(): path for path in self._usual_s}
        self._read = self._run = 0  # requests read, handlers begun in this turn of the loop
        self._began_s = 0.0
        self._place_s = 2 * _FIRST_GUESS_S  # what one place in a turn costs, HTTP included
        self._refusals = {
            reason: (metrics.SHED.labels(reason), errors.answer_to(errors.Overloaded(detail)))
            for reason, detail in DETAILS.items()
        }

    def hopeless(self, data: bytes, waited_s: float) -> str | None:
        """Why a whole request, as just read, is to be refused without being parsed; else None.

        `waited_s`: how long it has waited so far. The reason is one of `DETAILS`.
        """
        path = self._paths.get(data[: data.find(b" ", 5, _LONGEST_START)])
        if path is None:
            return None
        usual_s = self._usual_s[path]
        if not self._read:
            asyncio.get_running_loop().call_soon(self._turn)
            self._began_s = time.perf_counter()
        self._read += 1
        wait_s = waited_s + self._read * self._place_s
        deadline_s = self._deadline_within(data) if wait_s > _NO_WAIT_S else None
        if deadline_s is None or wait_s <= _WAITING * (deadline_s - usual_s):
            return None
        self._read -= 1
        reason = "late" if waited_s >= deadline_s else "busy"
        self._count(path, reason)
        return reason

    def refusal(self, scope: Scope) -> Response | None:
        """The 503 of a request that cannot be answered in time, the 422 of a wrong header."""
        now_s = time.perf_counter()
        self._run += 1
        if self._run >= _MANY:
            each_s = (now_s - self._began_s) / self._run
            self._place_s = _towards(self._place_s, each_s)
        waited_s = now_s - scope.get("state", {}).get(ARRIVED, now_s)
        try:
            deadline_s = self._deadline_of(scope["headers"])
        except errors.BodyInvalid as error:
            return errors.answer_to(error)
        path = scope["path"]
        if waited_s <= _WAITING * (deadline_s - self._usual_s[path]):
            return None
        return self._count(path, "late" if waited_s >= deadline_s else "busy")

    def served(self, path: str, seconds: float) -> None:
        """Learn from one answer: a step towards the median, which single slow bodies leave be."""
        self._usual_s[path] = _towards(self._usual_s[path], seconds)

    def _turn(self) -> None:
        """Runs before the handlers of what was read."""
        self._read = self._run = 0

    def _count(self, path: str, reason: str) -> Response:
        self._usual_s[path] /= _STEP  # or one slow spell could shut short deadlines out for good
        counter, answer = self._refusals[reason]
        counter.inc()
        return answer

    def _deadline_within(self, data: bytes) -> float | None:
        """The deadline of a request that is all there and leaves its connection open, else None."""
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower()
        if _number(lines, b"content-length") != len(body) or b"\r\nconnection:" in lines:
            return None
        if lines.count(b"content-length") > 1 or b"\r\ntransfer-encoding" in lines:
            return None  # where a request ends is for the parser to say, if there is any doubt
        if b"\r\n" + _HEADER + b":" not in lines:
            return self._deadline_s
        given_ms = _number(lines, _HEADER)
        return given_ms / 1000.0 if given_ms is not None and 1 <= given_ms <= LONGEST_MS else None

    def _deadline_of(self, headers: Iterable[tuple[bytes, bytes]]) -> float:
        for name, value in headers:
            if name == _HEADER:
                return _seconds(value)
        return self._deadline_s


def parameter() -> Mapping[str, object]:
    """The header as the OpenAPI document describes it."""
    return {
        "name": DEADLINE_HEADER,
        "in": "header",
        "required": False,
        "description": "Milliseconds from the request's arrival after which its answer is of no"
        " use. A server that cannot keep it answers 503 at once, with Retry-After.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LONGEST_MS},
        "example": 50,
    }


def _towards(estimate: float, sample: float) -> float:
    return estimate * _STEP if sample > estimate else estimate / _STEP


def _number(lines: bytes, name: bytes) -> int | None:
    """The whole number that a header holds; `lines` in lower case."""
    value = lines.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()
    return int(value) if value.isdigit() and len(value) <= _DIGITS else None


def _seconds(value: bytes) -> float:
    if value.isdigit() and len(value) <= 5 and 1 <= int(value) <= LONGEST_MS:
        return int(value) / 1000.0
    limit = f"a whole number of milliseconds from 1 to {LONGEST_MS}"
    fault = errors.FieldError(
        field=DEADLINE_HEADER,
        value=errors.shown(value.decode("latin-1")),
        limit=limit,
        remedy="Correct this header or leave it out.",
    )
    raise errors.BodyInvalid(f"{DEADLINE_HEADER} must be {limit}", [fault])
