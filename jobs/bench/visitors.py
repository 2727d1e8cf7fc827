"""Visitors who ask for ads at a steady rate, and look whether an answer shows what it must not.

An ad is held from the moment its pause was acknowledged until its return is asked for. A decision
that starts in that time must not contain it: that is the promise of the kill switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_CLOSES = b"connection: close"
_TIMEOUT_S = 30.0
_FRESH_AFTER = 40
"""Requests on one connection: a new one may reach another worker, also one that is new itself."""
_SHOWN = 300


class _Ad(msgspec.Struct, frozen=True):
    ad_id: int


class _Decision(msgspec.Struct, frozen=True):
    ads: list[_Ad]


_decoded = msgspec.json.Decoder(_Decision).decode


@dataclass(slots=True)
class Seen:
    """What the visitors saw. `failures`: requests without an answer of status 200, described;
    `refused`: the answers of status 503; `shown`: ads of the newest decisions."""

    decisions: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    shown: deque[int] = field(default_factory=lambda: deque(maxlen=_SHOWN))


class Visitors:
    """Keep-alive connections to one port that POST `bodies` to `/v1/decisions` in turn."""

    def __init__(self, port: int, secret: str, bodies: Sequence[str]) -> None:
        self.seen = Seen()
        self._port = port
        self._requests = [_request(port, secret, body) for body in bodies]
        self._held: dict[int, float] = {}
        self._sent = 0

    def hold(self, ad_id: int) -> None:
        """The pause of this ad is acknowledged: from here on no decision may show it."""
        self._held[ad_id] = time.perf_counter()

    def release(self, ad_id: int) -> None:
        """The return of this ad is about to be asked for."""
        self._held.pop(ad_id, None)

    @asynccontextmanager
    async def coming(self, connections: int, rate: float) -> AsyncIterator[Seen]:
        """Visit for the length of the block, `rate` requests a second over all connections."""
        self.seen = Seen()
        over = asyncio.Event()
        each_s = connections / rate
        started = time.perf_counter()
        visits = [
            asyncio.create_task(self._visit(started + number / rate, each_s, over))
            for number in range(connections)
        ]
        try:
            yield self.seen
        finally:
            over.set()
            await asyncio.gather(*visits)

    async def _visit(self, due: float, each_s: float, over: asyncio.Event) -> None:
        connection = _Connection(self._port)
        while not over.is_set():
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self._ask(connection, due)
            due += each_s
        connection.close()

    async def _ask(self, connection: _Connection, due: float) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        held, began = dict(self._held), time.perf_counter()
        try:
            status, body = await asyncio.wait_for(connection.ask(request), _TIMEOUT_S)
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            self.seen.failures.append(f"{type(error).__name__}: {error}")
            return
        self.seen.latencies_ms.append(1000 * (time.perf_counter() - min(due, began)))
        if status == 200:
            self._look(body, held)
        elif status == 503:
            self.seen.refused.append(body[:300].decode(errors="replace"))
        else:
            self.seen.failures.append(f"{status}: {body[:200]!r}")

    def _look(self, body: bytes, held: dict[int, float]) -> None:
        self.seen.decisions += 1
        ads = [ad.ad_id for ad in _decoded(body).ads]
        self.seen.shown.extend(ads)
        for ad_id in ads:
            # Held before this decision was asked for, and not given back since.
            if ad_id in held and self._held.get(ad_id) == held[ad_id]:
                late = time.perf_counter() - held[ad_id]
                self.seen.broken.append(f"ad {ad_id}, {late:.3f} s after its pause was confirmed")


class _Connection:
    """One connection, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._left = 0

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of one answer."""
        reader, writer = self._streams or await self._opened()
        writer.write(request)
        head = (await reader.readuntil(_HEAD_END)).lower()
        body = await reader.readexactly(_content_length(head))
        self._left -= 1
        if _CLOSES in head or not self._left:
            self.close()
        return int(head[9:12]), body

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        # Uneven, so that not all of them come back at once.
        self._left = random.randint(_FRESH_AFTER // 2, _FRESH_AFTER)  # noqa: S311 - no secret
        return self._streams

    def close(self) -> None:
        """Give the connection up; the next request opens another."""
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None


def _content_length(head: bytes) -> int:
    return int(head.partition(_LENGTH)[2].partition(b"\r\n")[0])


def _request(port: int, secret: str, body: str) -> bytes:
    content = body.encode()
    lines = [
        "POST /v1/decisions HTTP/1.1",
        f"host: 127.0.0.1:{port}",
        f"authorization: Bearer {secret}",
        "content-type: application/json",
        f"content-length: {len(content)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content
