"""A bounded load over HTTP/1.1, in a process of its own: reads a plan on stdin, answers on stdout.

Raw sockets and requests made beforehand, so that it takes little of the machine that it measures:
some 0.1 ms of a core for each request.
`python -m jobs.bench.client < plan.json`
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from typing import cast

import msgspec

_TIMEOUT_S = 30.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_SENT_AT_ONCE = 8
"""A sender that is behind its schedule looks for answers after so many requests."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load: POST `bodies` in turn to 127.0.0.1, for `seconds` or `requests`, whichever ends it.

    With a `rate` requests are due evenly, that many a second, and a latency counts from when its
    request was due; without one each connection sends as soon as it has its answer. An answer must
    have status 200 and contain `wanted`. With a `deadline_ms` every request says how much of it is
    left, counted from when it was due; one that has none left is given up unsent, and a 503 with
    Retry-After is a refusal, not wrong. `keeps`: the load holds every answer that differs.
    """

    port: int
    path: str
    bodies: list[str]
    headers: dict[str, str]
    connections: int
    seconds: float
    requests: int
    rate: float | None = None
    wanted: str = ""
    deadline_ms: int | None = None
    keeps: bool = False


class AnsweredAd(msgspec.Struct, frozen=True):
    """What an answer says of one ad."""

    ad_id: int
    pctr: float | None = None
    ecpm_micros: int | None = None


class Answer(msgspec.Struct, frozen=True):
    """What is the same in every answer of one snapshot to one request, exploration apart."""

    snapshot_id: str
    ads: list[AnsweredAd]


_decoded = msgspec.json.Decoder(Answer).decode


class Kept(msgspec.Struct, frozen=True):
    """An answer to `bodies[body]`, and how often it was given."""

    body: int
    count: int
    answer: Answer


class Load(msgspec.Struct, frozen=True):
    """What came of it: answers, those that were not as wanted, and latencies in ms, ascending.

    `refused_ms`: latencies of refusals, ascending; `given_up`: requests whose turn came too late.
    """

    answers: int
    wrong: int
    seconds: float
    latencies_ms: list[float]
    first_wrong: str = ""
    refused_ms: list[float] = []
    given_up: int = 0
    kept: list[Kept] = []

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    def latency_ms(self, part: float) -> float:
        """The latency that `part` of all requests stay within."""
        return self.latencies_ms[min(int(part * self.answers), self.answers - 1)]


class _Driver:
    """Sends the plan's requests over its connections."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests = [_request(plan, body) for body in plan.bodies]
        self.wanted = plan.wanted.encode()
        self.idle: deque[_Connection] = deque()
        self.due: deque[float] = deque()
        self.sent = self.wrong = 0
        self.latencies: list[float] = []
        self.refused: list[float] = []
        self.given_up = 0
        self.kept: Counter[tuple[int, bytes]] = Counter()
        self.first_wrong = ""
        self.ended = asyncio.get_running_loop().create_future()
        self.started = self.deadline = 0.0

    async def run(self) -> Load:
        """Connect, send everything, wait for the last answer."""
        loop = asyncio.get_running_loop()
        for _ in range(self.plan.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.plan.port)
        self.started = time.perf_counter()
        self.deadline = self.started + self.plan.seconds
        pacing = asyncio.create_task(self._pace()) if self.plan.rate else None
        if pacing is None:
            for connection in [self.idle.popleft() for _ in range(len(self.idle))]:
                self.next_on(connection)
        await asyncio.wait_for(self.ended, self.plan.seconds + _TIMEOUT_S)
        if pacing is not None:
            await pacing
        seconds = time.perf_counter() - self.started
        found, refused = (
            sorted(1000 * one for one in times) for times in (self.latencies, self.refused)
        )
        return Load(
            *(len(found), self.wrong, seconds, found),
            *(self.first_wrong, refused, self.given_up, self._kept()),
        )

    def _kept(self) -> list[Kept]:
        return [Kept(body, n, _decoded(answer)) for (body, answer), n in self.kept.items()]

    async def _pace(self) -> None:
        assert self.plan.rate  # noqa: S101 - the caller looked
        count = min(self.plan.requests, int(self.plan.rate * self.plan.seconds))
        for number in range(count):
            due = self.started + number / self.plan.rate
            ahead = due - time.perf_counter()
            if ahead > 0 or number % _SENT_AT_ONCE == 0:
                await asyncio.sleep(max(0.0, ahead))
            self.due.append(due)
            if self.idle:
                self.next_on(self.idle.popleft())
        self.deadline = 0.0
        self.end_if_done()

    def next_on(self, connection: _Connection) -> None:
        """Send the next request over a free connection, if there is one to send."""
        if self.plan.rate:
            due = self._next_due()
        else:
            due = time.perf_counter() if self._goes_on() else None
        if due is None:
            self.idle.append(connection)
            self.end_if_done()
            return
        connection.number = self.sent % len(self.requests)
        head, body = self.requests[connection.number]
        connection.send(head + self._deadline(due) + body, due)
        self.sent += 1

    def _next_due(self) -> float | None:
        """When the next request was due, skipping those that nobody waits for any more."""
        while self.due:
            due = self.due.popleft()
            if self.plan.deadline_ms is None or self._left_ms(due) >= 1:
                return due
            self.given_up += 1
        return None

    def _left_ms(self, due: float) -> int:
        assert self.plan.deadline_ms is not None  # noqa: S101 - the callers looked
        return int(self.plan.deadline_ms - 1000 * (time.perf_counter() - due))

    def _deadline(self, due: float) -> bytes:
        if self.plan.deadline_ms is None:
            return b""
        return b"x-deadline-ms: %d\r\n" % max(1, self._left_ms(due))

    def end_if_done(self) -> None:
        """End once nothing is under way and nothing more will be."""
        over = not self.deadline or not self.plan.rate
        if over and len(self.idle) == self.plan.connections and not self.ended.done():
            self.ended.set_result(None)

    def _goes_on(self) -> bool:
        return self.sent < self.plan.requests and time.perf_counter() < self.deadline

    def answered(self, number: int, head: bytes, body: bytes, seconds: float) -> None:
        """Note one answer to the request of this number."""
        if self.plan.deadline_ms is not None and head.startswith(b"HTTP/1.1 503 "):
            self.refused.append(seconds)
            return
        self.latencies.append(seconds)
        if not head.startswith(b"HTTP/1.1 200 ") or self.wanted not in body:
            self.wrong += 1
            self.first_wrong = self.first_wrong or (head + body)[:500].decode(errors="replace")
        elif self.plan.keeps:
            self.kept[number, msgspec.json.encode(_decoded(body))] += 1

    def failed(self, error: Exception | None) -> None:
        """End at once: a lost connection makes the figures meaningless."""
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed a connection"))


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._received = b""
        self._due = 0.0
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._driver.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.failed(error)

    def send(self, request: bytes, due: float) -> None:
        """Send one request that was due at `due`."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        head, end, body = received.partition(_HEAD_END)
        if not end or len(body) < _content_length(head):
            return
        self._received = b""
        self._driver.answered(self.number, head, body, time.perf_counter() - self._due)
        self._driver.next_on(self)


def _content_length(head: bytes) -> int:
    _, _, after = head.lower().partition(_LENGTH)
    return int(after.partition(b"\r\n")[0])


def _request(plan: Plan, body: str) -> tuple[bytes, bytes]:
    """A request in two parts; another header may stand between them."""
    content = body.encode()
    lines = [f"POST {plan.path} HTTP/1.1", f"host: 127.0.0.1:{plan.port}"]
    lines += [f"{name}: {value}" for name, value in plan.headers.items()]
    lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, ""]).encode(), b"\r\n" + content


async def _run(plan: Plan) -> Load:
    return await _Driver(plan).run()


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_run(given))))
