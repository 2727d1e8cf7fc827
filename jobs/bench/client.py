"""A bounded load over HTTP/1.1, in a process of its own: reads a plan on stdin, answers on stdout.

Raw sockets and requests made beforehand, so that it takes little of the machine that it measures.
`python -m jobs.bench.client < plan.json`
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque

import msgspec

_TIMEOUT_S = 30.0
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load: POST `bodies` in turn to 127.0.0.1, for `seconds` or `requests`, whichever ends it.

    With a `rate` requests are due evenly, that many a second, and a latency counts from when its
    request was due; without one each connection sends as soon as it has its answer. An answer must
    have status 200 and contain `wanted`.
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


class Load(msgspec.Struct, frozen=True):
    """What came of it: answers, those that were not as wanted, and latencies in ms, ascending."""

    answers: int
    wrong: int
    seconds: float
    latencies_ms: list[float]
    first_wrong: str = ""

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
        found = sorted(1000 * one for one in self.latencies)
        return Load(len(found), self.wrong, seconds, found, self.first_wrong)

    async def _pace(self) -> None:
        assert self.plan.rate  # noqa: S101 - the caller looked
        count = min(self.plan.requests, int(self.plan.rate * self.plan.seconds))
        for number in range(count):
            due = self.started + number / self.plan.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.due.append(due)
            if self.idle:
                self.next_on(self.idle.popleft())
        self.deadline = 0.0
        self.end_if_done()

    def next_on(self, connection: _Connection) -> None:
        """Send the next request over a free connection, if there is one to send."""
        if self.plan.rate:
            due = self.due.popleft() if self.due else None
        else:
            due = time.perf_counter() if self._goes_on() else None
        if due is None:
            self.idle.append(connection)
            self.end_if_done()
            return
        connection.send(self.requests[self.sent % len(self.requests)], due)
        self.sent += 1

    def end_if_done(self) -> None:
        """End once nothing is under way and nothing more will be."""
        over = not self.deadline or not self.plan.rate
        if over and len(self.idle) == self.plan.connections and not self.ended.done():
            self.ended.set_result(None)

    def _goes_on(self) -> bool:
        return self.sent < self.plan.requests and time.perf_counter() < self.deadline

    def answered(self, head: bytes, body: bytes, seconds: float) -> None:
        """Note one answer."""
        self.latencies.append(seconds)
        if not head.startswith(b"HTTP/1.1 200 ") or self.wanted not in body:
            self.wrong += 1
            self.first_wrong = self.first_wrong or (head + body)[:500].decode(errors="replace")

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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP has no other
        self._transport = transport
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
        self._driver.answered(head, body, time.perf_counter() - self._due)
        self._driver.next_on(self)


def _content_length(head: bytes) -> int:
    _, _, after = head.lower().partition(_LENGTH)
    return int(after.partition(b"\r\n")[0])


def _request(plan: Plan, body: str) -> bytes:
    content = body.encode()
    lines = [f"POST {plan.path} HTTP/1.1", f"host: 127.0.0.1:{plan.port}"]
    lines += [f"{name}: {value}" for name, value in plan.headers.items()]
    lines += ["content-type: application/json", f"content-length: {len(content)}"]
    return "\r\n".join(lines).encode() + _HEAD_END + content


async def _run(plan: Plan) -> Load:
    return await _Driver(plan).run()


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_run(given))))
