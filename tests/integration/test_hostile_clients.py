"""`adscent serve` as a real process against clients that mean ill or are broken, byte by byte."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from app.storage.processes import free_ports
from tests.contract.conftest import (
    SCOPES,
    fill_catalog,
    now_ms,
    promote_genesis,
    secrets_of,
    write_features,
)

_CLI = [sys.executable, "-c", "from app.cli.main import main; main()"]
_TOP = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 2


@dataclass
class Server:
    """One worker behind a port; `log` is its standard error."""

    port: int
    metrics_port: int
    log: Path
    database_url: str
    secrets: dict[str, str]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def connection(self) -> Iterator[socket.socket]:
        """A bare connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as found:
            yield found

    def answers(self, sent: bytes) -> bytes:
        """All that comes back for these bytes until the server closes."""
        with self.connection() as open_:
            open_.sendall(sent)
            return _all_of(open_)


@pytest.fixture(scope="module")
def server(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ready server over a database of its own."""
    home = tmp_path_factory.mktemp("hostile")
    url = postgres_url.rpartition("/")[0] + "/hostile"
    settings = Settings(home=home, features=write_features(home), database_url=url)
    secrets = asyncio.run(_prepare(postgres_url, settings))
    ports, log = free_ports(2), home / "log"
    with log.open("wb") as told:
        process = subprocess.Popen(  # noqa: S603  # ours
            [*_CLI, "serve"], cwd=_TOP, env=_environment(settings, *ports), stderr=told
        )
    found = Server(*ports, log, url, secrets)
    try:
        _await_ready(found)
        yield found
    finally:
        process.terminate()
        process.wait(20)


async def _prepare(postgres_url: str, settings: Settings) -> dict[str, str]:
    administration = Database(postgres_url)
    async with administration.session() as connection:
        await connection.execute("CREATE DATABASE hostile TEMPLATE adscent_template")
    await administration.close()
    database = Database(str(settings.database_url))
    await fill_catalog(catalog := Catalog(database))
    await promote_genesis(database, settings, catalog)
    secrets = await secrets_of(database)
    await database.close()
    return secrets


def _environment(settings: Settings, port: int, metrics_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": str(settings.database_url),
        "ADSCENT_HOME": str(settings.home),
        "ADSCENT_FEATURES": str(settings.features),
        "ADSCENT_PORT": str(port),
        "ADSCENT_METRICS_PORT": str(metrics_port),
        "ADSCENT_REQUEST_TIMEOUT_S": str(_TIMEOUT_S),
        "ADSCENT_LOG_LEVEL": "debug",
        "ADSCENT_LOG_REQUESTS": "1",
    }


def _await_ready(server: Server) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if httpx.get(server.url + "/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(server.log.read_text()[-2000:])


def _all_of(open_: socket.socket) -> bytes:
    found = b""
    while chunk := open_.recv(65_536):
        found += chunk
    return found


def _head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "Host: test", "", ""]).encode()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", _head("POST /v1/score HTTP/1.1", "Content-Length: 100") + b"{"],
    ids=["nothing", "half a head", "half a body"],
)
def test_slow_client_is_answered_408_and_closed(server: Server, sent: bytes) -> None:
    """Whatever part of a request a client stops in, its connection does not outlive the timeout."""
    with server.connection() as open_:
        open_.sendall(sent)
        started = time.monotonic()
        answer = _all_of(open_)
        waited = time.monotonic() - started
    assert b"HTTP/1.1 408 Request Timeout" in answer or b"HTTP/1.1 401" in answer
    assert b"connection: close" in answer
    assert _TIMEOUT_S - 0.5 < waited < _TIMEOUT_S + 3


def test_a_byte_now_and_then_does_not_help(server: Server) -> None:
    """The time counts from the first byte of a request, not from the last one received."""
    with server.connection() as open_:
        open_.sendall(b"GET /healthz HTTP/1.1\r\nX-A: ")
        started = time.monotonic()
        open_.settimeout(0.2)
        while time.monotonic() < started + 8:
            try:
                open_.sendall(b"a")
                if open_.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert time.monotonic() < started + _TIMEOUT_S + 3


def test_client_that_never_reads_is_cut_off(server: Server) -> None:
    """Answers that nobody takes do not keep a connection, however many are asked for."""
    key = server.secrets["admin"]
    asked = _head("GET /openapi.json HTTP/1.1", f"Authorization: Bearer {key}") * 200
    with socket.socket() as open_:
        open_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        open_.connect(("127.0.0.1", server.port))
        open_.sendall(asked)
        until = time.monotonic() + 15
        while _takes(open_, b"\r\n") and time.monotonic() < until:
            time.sleep(0.2)
        assert not _takes(open_, b"\r\n")


def _takes(open_: socket.socket, sent: bytes) -> bool:
    """Whether the other side still takes these bytes."""
    open_.settimeout(1.0)
    try:
        open_.sendall(sent)
    except OSError:
        return False
    return True


def test_endless_head_is_refused(server: Server) -> None:
    """Headers without end are answered 431 long before they fill the memory."""
    with server.connection() as open_:
        open_.sendall(b"GET /healthz HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 40_000_000:
                open_.sendall(b"X-Filler: " + b"a" * 1000 + b"\r\n")
                sent += 1012
        except OSError:
            pass
        assert sent < 20_000_000


def test_long_head_is_told_its_limit(server: Server) -> None:
    """A client whose cookies are too many is told so, as a problem document."""
    with server.connection() as open_:
        open_.sendall(b"GET /healthz HTTP/1.1\r\nCookie: " + b"a" * 40_000)
        answer = _all_of(open_)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["type"].endswith("head-too-large")


AMBIGUOUS = {
    "length and chunks": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "two lengths": ("Content-Length: 5", "Content-Length: 6"),
    "length with a sign": ("Content-Length: +5",),
    "unknown coding": ("Transfer-Encoding: xchunked",),
    "coding twice": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "space before the colon": ("Transfer-Encoding : chunked", "Content-Length: 5"),
    "folded line": ("Transfer-Encoding:\r\n chunked", "Content-Length: 5"),
}


@pytest.mark.parametrize("lines", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_request_whose_end_is_in_doubt_is_refused(server: Server, lines: tuple[str, ...]) -> None:
    """What a proxy might end elsewhere is refused and closed: nothing is smuggled."""
    smuggled = _head("GET /healthz HTTP/1.1")
    body = b"0\r\n\r\n"
    answer = server.answers(_head("POST /v1/score HTTP/1.1", *lines) + body + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


def test_upgrade_to_a_websocket_is_not_made(server: Server) -> None:
    """There is none; its handshake would be a second protocol without the limits of this one."""
    lines = ["Connection: Upgrade, close", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines.append("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    answer = server.answers(_head("GET /v1/ads HTTP/1.1", *lines))
    assert answer.startswith(b"HTTP/1.1 401 ")


PATHS = (
    "//v1/ads",
    "/v1//ads",
    "/v1/ads/",
    "/v1/./ads",
    "/v1/x/../ads",
    "/V1/ADS",
    "/v1/ads;x=1",
    "/v1/ads%00",
    "/v1/ads%2F1",
    "/v1/%61ds",
    "/v1/%2561ds",
    "http://elsewhere/v1/ads",
    "/healthz/../v1/ads",
    "/v1/e/c/../../ads",
    "/v1/decisions",
    "/v1/%64ecisions",
    "/v1/decisions/",
    "/v1/score:batch",
    "/v1/score%3Abatch",
    "/openapi.json",
    "/docs",
    "*",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_spelling_of_a_path_needs_no_key(server: Server, path: str) -> None:
    """Every method on every odd spelling is refused without a key, and redirects nowhere."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        sent = _head(f"{method} {path} HTTP/1.1", "Content-Length: 2", "Connection: close")
        status = int(server.answers(sent + b"{}").split(b" ", 2)[1])
        assert status in (400, 401, 404, 405), (method, path, status)


def test_client_that_leaves_in_the_middle_is_no_error(server: Server) -> None:
    """Nobody can fill the log with tracebacks by closing connections."""
    key = server.secrets["score"]
    lines = (f"Authorization: Bearer {key}", "Content-Type: application/json", "Content-Length: 99")
    for path in ("/v1/score", "/v1/decisions"):
        with server.connection() as open_:
            open_.sendall(_head(f"POST {path} HTTP/1.1", *lines) + b"{")
            time.sleep(0.2)
    time.sleep(0.5)
    assert "ClientDisconnect" not in server.log.read_text()


def test_noise_is_logged_once(server: Server) -> None:
    """What is no HTTP at all costs one line of the log in ten seconds, however often it comes."""
    answers = {server.answers(b"\x16\x03\x01 no http\r\n\r\n") for _ in range(200)}
    log = server.log.read_text()
    assert 1 <= log.count("Invalid HTTP request received") <= 5, (answers, log[-2000:])


def test_request_id_joins_answer_and_log(server: Server) -> None:
    """The caller's own id comes back and is in the line of the log with decision and snapshot."""
    headers = {"Authorization": f"Bearer {server.secrets['score']}", "X-Request-Id": "shop-77"}
    answer = httpx.post(
        server.url + "/v1/decisions", headers=headers, json={"user": {}, "slots": 1}
    )
    assert answer.headers["x-request-id"] == "shop-77"
    line = _line_of(server, "shop-77")
    assert (line["event"], line["route"], line["status"]) == (
        *("request_answered", "/v1/decisions", 200),
    )
    decided = answer.json()
    assert line["decision_id"] == decided["decision_id"]
    assert line["snapshot_id"] == decided["snapshot_id"]


@pytest.mark.parametrize("given", ["two words", 'a"b', "x" * 129, "é", ""])
def test_id_that_could_break_a_line_is_replaced(server: Server, given: str) -> None:
    """Only plain ids come back; for any other the server gives one of its own."""
    headers = {"X-Request-Id": given.encode()}
    first = httpx.get(server.url + "/healthz", headers=headers).headers["x-request-id"]
    second = httpx.get(server.url + "/healthz", headers=headers).headers["x-request-id"]
    assert given.encode() not in (first.encode(), second.encode())
    assert first != second


def test_every_answer_is_safe_to_show(server: Server) -> None:
    """A browser must not guess types, frame, run or keep what any call answers."""
    key = {"Authorization": f"Bearer {server.secrets['admin']}"}
    for path in ("/healthz", "/v1/ads", "/v1/nothing", "/v1/e/i/x", "/v1/e/c/x"):
        answer = httpx.get(server.url + path, headers=key)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_no_secret_is_in_the_log(server: Server) -> None:
    """Keys, tokens and the database's password are nowhere, at the most talkative level."""
    made = httpx.post(
        server.url + "/v1/decisions",
        headers={"Authorization": f"Bearer {server.secrets['score']}"},
        json={"user": {"geo": "us"}, "slots": 1},
    )
    token = made.json()["ads"][0]["token"]
    unknown = "adscent_" + "Zq" * 20
    httpx.get(server.url + f"/v1/e/i/{token}")
    httpx.get(server.url + f"/v1/e/c/{token}")
    httpx.get(server.url + f"/v1/ads/{token}", headers={"X-Api-Key": unknown})
    httpx.get(server.url + "/v1/ads", headers={"Authorization": f"Basic {unknown}"})
    for body in ({"events": [{"type": "click", "token": token, "x": 1}]}, {"events": token}):
        for scope in SCOPES:
            headers = {"Authorization": f"Bearer {server.secrets[scope]}"}
            httpx.post(server.url + "/v1/events", headers=headers, json=body)
    with server.connection() as open_:
        open_.sendall(f"GET /v1/e/c/{token} HTTP/1.1\r\nBad Header: {unknown}\r\n\r\n".encode())
        _all_of(open_)
    time.sleep(0.3)
    log = server.log.read_text()
    assert len(log.splitlines()) > 10
    password = server.database_url.partition("://")[2].partition("@")[0].partition(":")[2]
    assert len(password) > 10
    for secret in (*server.secrets.values(), token, unknown, password):
        assert secret not in log
        assert secret[8:28] not in log


def test_every_line_of_the_log_is_an_object(server: Server) -> None:
    """No client can start a line of its own, and every line says when, where and how bad."""
    httpx.get(server.url + '/v1/ads%0a{"level":"error"}')
    for line in _lines(server):
        assert {"event", "level", "logger", "timestamp"} <= set(line)
        assert line.get("route") != '/v1/ads\n{"level":"error"}'


def _line_of(server: Server, request_id: str) -> dict[str, object]:
    """The line of a request: it is written just after the answer."""
    for _ in range(100):
        found = [line for line in _lines(server) if line.get("request_id") == request_id]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no line of {request_id}")


def _lines(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def test_answers_made_up_by_callers_do_not_add_series(server: Server) -> None:
    """Unknown paths, methods and hosts share the series there are: memory does not grow by them."""

    def series() -> set[str]:
        text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
        return {line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"}

    def strange(number: int) -> None:
        lines = (f"GET /v1/x{number}/{now_ms()} HTTP/1.1", f"X-{number}: 1", "Connection: close")
        sent = _head(*lines)
        server.answers(sent)
        client.get(f"/v1/ads/{number}?a{number}=1")
        client.get(f"/v1/e/i/{number}")
        client.request("PROPFIND", f"/v1/placements/{number}")

    with httpx.Client(base_url=server.url) as client:
        strange(0)
        before = series()
        for number in range(1, 20):
            strange(number)
        assert series() == before
