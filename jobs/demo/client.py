"""A lean HTTP/1.1 client for one server: every answer is checked, every failure is an error.

A general client costs more processor time a request than the server that is on show.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_TIMEOUT_S = 10.0
_IDLE_S = 2.0  # well before the server closes an idle connection: no request meets a closing one
_REQUESTS_EACH = 100  # then anew, so that no worker keeps all connections to itself
_FAULTS = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)


class RequestFailed(Exception):
    """A request without a 2xx answer; the message says which and why.

    `status`: of the answer, None where there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """One kept-alive connection; `used_s` is when it last served, by the monotonic clock."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._requests = 0
        self.used_s = time.monotonic()

    @property
    def is_fit(self) -> bool:
        """Whether the next request may use it."""
        is_young = time.monotonic() - self.used_s < _IDLE_S and self._requests < _REQUESTS_EACH
        return is_young and not self._reader.at_eof()

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and read its answer: status and body."""
        self._requests += 1
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        body = await self._reader.readexactly(_length(head))
        self.used_s = time.monotonic()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it."""
        self._writer.close()


class Client:
    """POSTs JSON to one server with one API key, over as many connections as it takes."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        self._fixed = (
            f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {secret}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._idle: deque[Connection] = deque()

    async def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer. Raises `RequestFailed` unless the status is 200."""
        head = f"POST {path} HTTP/1.1\r\n{self._fixed}Content-Length: {len(body)}\r\n\r\n"
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._connection() as connection:
                status, answer = await connection.exchange(head.encode() + body)
        except _FAULTS as error:
            raise RequestFailed(f"POST {path}: {type(error).__name__} {error}") from error
        if status != 200:
            detail = answer[:300].decode(errors="replace")
            raise RequestFailed(f"POST {path}: {status} {detail}", status)
        return answer

    def close(self) -> None:
        """Close all connections that are idle."""
        while self._idle:
            self._idle.popleft().close()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await self._take()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.popleft()  # the one that waited longest: all stay in use
            if connection.is_fit:
                return connection
            connection.close()
        return Connection(*await asyncio.open_connection("127.0.0.1", self._port))


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("the answer has no Content-Length")
