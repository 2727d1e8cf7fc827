"""Which requests the limiter refuses, and when it learns."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from app.connection.overload import ARRIVED, Limiter

PATH = "/v1/score"
BODY = b'{"user":{}}'


def _limiter() -> Limiter:
    """Half a second where no deadline is given."""
    return Limiter([PATH], 0.5)


def _scope(waited_s: float, deadline_ms: bytes | None = None) -> dict[str, Any]:
    headers = [] if deadline_ms is None else [(b"x-deadline-ms", deadline_ms)]
    state = {ARRIVED: time.perf_counter() - waited_s}
    return {"path": PATH, "headers": headers, "state": state}


def _request(
    headers: bytes = b"", start: bytes = b"POST /v1/score HTTP/1.1", body: bytes = BODY
) -> bytes:
    return start + b"\r\nContent-Length: %d\r\n" % len(BODY) + headers + b"\r\n" + body


@pytest.mark.parametrize(
    ("waited_s", "deadline_ms", "is_refused"),
    [
        *((0.0, None, False), (0.2, None, False), (0.3, None, True)),
        *((0.03, b"50", True), (0.02, b"50", False), (0.3, b"1000", False), (9.0, b"50", True)),
    ],
)
def test_half_of_the_deadline_may_pass_in_waiting(
    waited_s: float, deadline_ms: bytes | None, is_refused: bool
) -> None:
    """A request that waited longer gets a 503 with Retry-After, any other one goes on."""
    answer = _limiter().refusal(_scope(waited_s, deadline_ms))
    assert (answer is not None) == is_refused
    if answer is not None:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(bytes(answer.body))["type"] == "urn:problem:adscent:overloaded"


def test_a_request_without_a_noted_arrival_is_never_late() -> None:
    """Under another server nothing notes arrivals: nothing is refused."""
    assert _limiter().refusal({"path": PATH, "headers": []}) is None


def test_slow_handlers_leave_less_time_to_wait() -> None:
    """After many answers of 40 ms a deadline of 50 ms leaves no time to wait 10."""
    limiter = _limiter()
    for _ in range(1000):
        limiter.served(PATH, 0.04)
    assert limiter.refusal(_scope(0.01, b"50")) is not None
    assert limiter.refusal(_scope(0.01, b"500")) is None


def test_a_few_slow_bodies_change_little() -> None:
    """One answer in three that took a second leaves short deadlines possible."""
    limiter = _limiter()
    for number in range(999):
        limiter.served(PATH, 1.0 if number % 3 == 0 else 0.0005)
    assert limiter.refusal(_scope(0.0, b"20")) is None


def test_short_deadlines_are_not_shut_out_for_good() -> None:
    """After a slow spell refusals themselves lower the estimate until one is tried again."""
    limiter = _limiter()
    for _ in range(1000):
        limiter.served(PATH, 0.1)
    tries = [limiter.refusal(_scope(0.0, b"50")) is None for _ in range(100)]
    assert not tries[0]
    assert tries[-1]


def _hopeless(limiter: Limiter, *requests: bytes, waited_s: float = 0.0) -> list[str | None]:
    """What is said of requests that are read in one turn of the loop."""

    async def turn() -> list[str | None]:
        return [limiter.hopeless(one, waited_s) for one in requests]

    return asyncio.run(turn())


def test_the_place_in_the_turn_counts() -> None:
    """Of many requests read at once the first ones go on; those whose turn is far off do not."""
    found = _hopeless(_limiter(), *[_request(b"X-Deadline-Ms: 20\r\n")] * 200)
    first_refused = found.index("busy")
    assert 5 < first_refused < 30
    assert found[0] is None
    assert _hopeless(_limiter(), *[_request()] * 200) == [None] * 200


def test_every_turn_starts_anew() -> None:
    """What was read in an earlier turn is answered by then."""
    limiter = _limiter()

    async def turns() -> list[str | None]:
        found = []
        for _ in range(200):
            found.append(limiter.hopeless(_request(b"X-Deadline-Ms: 20\r\n"), 0.0))
            await asyncio.sleep(0)
        return found

    assert asyncio.run(turns()) == [None] * 200


def test_a_passed_deadline_is_told_apart() -> None:
    """A request whose deadline passed before it was read is late, not one too many."""
    request = _request(b"x-deadline-ms:  50\r\n")
    assert _hopeless(_limiter(), request, waited_s=0.2) == ["late"]
    assert _hopeless(_limiter(), request, waited_s=0.04) == ["busy"]


@pytest.mark.parametrize(
    "request_",
    [
        _request(start=b"GET /v1/score HTTP/1.1"),
        _request(start=b"POST /v1/events HTTP/1.1"),
        _request(body=BODY[:-1]),
        _request(body=BODY + b"POST"),
        _request(b"Connection: close\r\n"),
        _request(b"X-Deadline-Ms: soon\r\n"),
        _request(b"Content-Length: 4\r\n"),
        _request(b"Transfer-Encoding: chunked\r\n"),
        b"POST /v1/score HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/score",
        b"",
    ],
)
def test_only_whole_plain_requests_to_its_calls_are_refused_unparsed(request_: bytes) -> None:
    """Everything else is parsed first, however long it has waited."""
    assert _hopeless(_limiter(), request_, waited_s=9.0) == [None]
