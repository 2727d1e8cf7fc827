"""A real server that was kept from its work: what waited too long is refused, the rest answered."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_TOP = Path(__file__).resolve().parents[2]
_BODY = b"{}"
_STOPPED_S = 0.4
_CONNECTIONS = 4
_SERVER = f"""
import contextlib, fastapi, fastapi.routing, uvicorn
from app.connection.arrival import LIMITER, MOST_CONNECTIONS
from app.connection.direct import Direct
from app.connection.overload import Limiter

async def call(request: fastapi.Request) -> fastapi.Response:
    await request.body()
    return fastapi.Response("answered")

limiter = Limiter(["/v1/score"], 5.0)

@contextlib.asynccontextmanager
async def lifespan(app):
    yield {{MOST_CONNECTIONS: {_CONNECTIONS}, LIMITER: limiter}}

app = fastapi.FastAPI(lifespan=lifespan)
app.post("/v1/score")(call)
app.post("/v1/events")(call)
routes = [one for one in app.routes if getattr(one, "path", "") == "/v1/score"]
app.add_middleware(Direct, limiter=limiter, routes=routes)
listening = uvicorn.Config(app, port=0).bind_socket()
listening.listen()
print(listening.getsockname()[1], flush=True)
protocol = "app.connection.arrival:TimedProtocol"
config = uvicorn.Config(app, http=protocol, loop="uvloop", log_config=None)
uvicorn.Server(config).run([listening])
"""


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process with uvicorn as it is deployed, and its port."""
    with subprocess.Popen(  # noqa: S603  # ours
        [sys.executable, "-c", _SERVER], cwd=_TOP, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        process.terminate()


def _request(path: str, headers: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (path.encode(), len(_BODY))
    return head + headers + b"\r\n" + _BODY


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _answer(connection: socket.socket) -> bytes:
    """One whole answer."""
    received = b""
    while not _is_whole(received):
        more = connection.recv(65_536)
        assert more, received
        received += more
    return received


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) == int(length)


def _asked(port: int, *requests: bytes, stopped: subprocess.Popen[str]) -> list[bytes]:
    """Answers to requests that reach the kernel while the process stands still."""
    connections = [_connect(port) for _ in requests]
    try:
        for connection in connections:
            connection.sendall(_request("/v1/events"))
            _answer(connection)
        os.kill(stopped.pid, signal.SIGSTOP)
        for connection, request in zip(connections, requests, strict=True):
            connection.sendall(request)
        time.sleep(_STOPPED_S)
        os.kill(stopped.pid, signal.SIGCONT)
        return [_answer(connection) for connection in connections]
    finally:
        for connection in connections:
            connection.close()
        time.sleep(0.05)  # the server learns that they are gone


def test_what_waited_too_long_is_refused_and_nothing_else(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    """The wait in the kernel counts; patient calls, and all calls to other paths, are answered."""
    process, port = server
    late, unparsed_late, patient, other = _asked(
        port,
        _request("/v1/score", b"X-Deadline-Ms: 100\r\nConnection: keep-alive\r\n"),
        _request("/v1/score", b"X-Deadline-Ms: 100\r\n"),
        _request("/v1/score", b"X-Deadline-Ms: 5000\r\n"),
        _request("/v1/events", b"X-Deadline-Ms: 100\r\n"),
        stopped=process,
    )
    for refused in (late, unparsed_late):
        assert refused.startswith(b"HTTP/1.1 503 "), refused
        assert b"retry-after: 1\r\n" in refused
        assert b"application/problem+json" in refused
        assert b"the deadline had passed" in refused
    assert patient.startswith(b"HTTP/1.1 200 "), patient
    assert other.startswith(b"HTTP/1.1 200 "), other


def test_a_refusal_leaves_the_connection_usable(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    """After a 503 the next request on the same connection is answered."""
    process, port = server
    with _connect(port) as connection:
        connection.sendall(_request("/v1/events"))
        _answer(connection)
        os.kill(process.pid, signal.SIGSTOP)
        connection.sendall(_request("/v1/score", b"X-Deadline-Ms: 50\r\n"))
        time.sleep(_STOPPED_S)
        os.kill(process.pid, signal.SIGCONT)
        assert b" 503 " in _answer(connection)
        for _ in range(3):
            connection.sendall(_request("/v1/score"))
            assert _answer(connection).startswith(b"HTTP/1.1 200 ")
    time.sleep(0.05)


def test_connections_are_bounded(server: tuple[subprocess.Popen[str], int]) -> None:
    """One connection too many gets a 503 and is closed; those before it go on."""
    _, port = server
    held = [_connect(port) for _ in range(_CONNECTIONS)]
    try:
        for connection in held:
            connection.sendall(_request("/v1/score"))
            assert _answer(connection).startswith(b"HTTP/1.1 200 ")
        with _connect(port) as extra:
            refused = _answer(extra)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"connection: close" in refused
            assert extra.recv(1) == b""
        held[0].sendall(_request("/v1/score"))
        assert _answer(held[0]).startswith(b"HTTP/1.1 200 ")
    finally:
        for connection in held:
            connection.close()
