"""The worker's end of a connection: when the bytes of a request arrived, and how many may connect.

A worker that has more to do than it can reads its sockets late, so the time at which it reads says
little. The kernel knows how long ago a socket last received data; what a request waited until its
handler runs is that and the time since it was read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import errors, metrics
from app.connection.observed import SAFE
from app.connection.overload import ARRIVED, DETAILS, Limiter
from app.connection.slow_clients import SlowClients

MOST_CONNECTIONS, LIMITER, SLOW_CLIENTS = "most_connections", "limiter", "slow_clients"
"""Where in the application's state the limit of connections, the `Limiter` and the watch over slow
clients stand."""
MOST_HEAD_BYTES = 32_768
"""A request line and headers that go on beyond this are refused; the parser has no limit."""

_TICK_MS = 4
"""The kernel counts in ticks; the slowest common ones take this long."""
# struct tcp_info: 8 bytes, then 32-bit numbers, the 12th of them the ms since data last arrived.
_LAST_RECEIVED, _INFO_BYTES = struct.Struct("I"), 56
_LAST_RECEIVED_AT = 52


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with each request's arrival in its scope and a limit of connections."""

    _socket: socket.socket | None = None
    _read_s = 0.0
    _limiter: Limiter | None = None
    _is_between_requests = True
    _slow: SlowClients | None = None
    _sending_since_s: float | None = None
    _head_bytes: int | None = None  # of a head that is not all there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 and close it where there are too many."""
        super().connection_made(transport)
        self._socket = _own_view(transport)
        self._limiter = self.app_state.get(LIMITER)
        self._slow = self.app_state.get(SLOW_CLIENTS)
        self._sending_since_s = time.perf_counter()
        if self._slow is not None:
            self._slow.watch(self)
        limit = self.app_state.get(MOST_CONNECTIONS)
        if limit is not None and len(self.connections) > limit:
            metrics.SHED.labels("connections").inc()
            transport.write(_TOO_MANY)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the view of the socket, which is the transport's to close."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        if self._slow is not None:
            self._slow.forget(self)
        super().connection_lost(exc)

    @property
    def sending_since_s(self) -> float | None:
        """Since when the client owes (the rest of) a request; None where it owes nothing."""
        return self._sending_since_s

    @property
    def is_stalled(self) -> bool:
        """Whether bytes wait that the client does not take."""
        return self.transport.is_closing() or bool(self.flow.write_paused)

    def give_up(self) -> None:
        """Answer 408, unless an answer has begun, and close."""
        metrics.SHED.labels("slow").inc()
        self._end(_TOO_SLOW)

    def abort(self) -> None:
        """Close without a word; what was not sent is lost."""
        metrics.SHED.labels("slow").inc()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Note when these bytes came, and parse them; refuse a request without hope unparsed."""
        waited_s = _waited_s(self._socket)
        self._read_s = time.perf_counter() - waited_s
        limiter = self._limiter if self._is_idle() else None
        reason = None if limiter is None else limiter.hopeless(data, waited_s)
        if reason is not None:
            self._refuse(reason)
            return
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._end(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Start a request: its first bytes have just been read."""
        super().on_message_begin()
        self._is_between_requests = False
        self._sending_since_s, self._head_bytes = self._read_s, 0
        self.scope["state"][ARRIVED] = self._read_s

    def on_headers_complete(self) -> None:
        """Start to answer: the head is all there."""
        self._head_bytes = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request, whose last bytes have just been read."""
        self._is_between_requests = True
        self._sending_since_s = None
        super().on_message_complete()

    def _is_idle(self) -> bool:
        """Whether the next byte starts a request that nothing stands before."""
        return self._is_between_requests and (self.cycle is None or self.cycle.response_complete)

    def _end(self, answer: bytes) -> None:
        """Close, with this answer where none has begun."""
        if not self.transport.is_closing():
            if (
                self.cycle is None
                or self.cycle.response_complete
                or not self.cycle.response_started
            ):
                self.transport.write(answer)
            self.transport.close()

    def _refuse(self, reason: str) -> None:
        self.transport.write(_REFUSALS[reason])
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )


def _own_view(transport: asyncio.Transport) -> socket.socket | None:
    """The transport's socket as an object that asks the kernel directly, three times as fast."""
    given = transport.get_extra_info("socket")
    if not hasattr(socket, "TCP_INFO") or given.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return socket.socket(given.family, given.type, given.proto, fileno=given.fileno())


def _waited_s(view: socket.socket | None) -> float:
    """Seconds that the last bytes waited in the kernel, less what its ticks leave open."""
    if view is None:
        return 0.0
    try:
        info = view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return 0.0  # the connection is gone, or the kernel does not tell
    waited_ms: int = _LAST_RECEIVED.unpack_from(info, _LAST_RECEIVED_AT)[0]
    return max(0, waited_ms - _TICK_MS) / 1000.0


def _as_bytes(fault: errors.RequestFault, *more: bytes) -> bytes:
    """A whole answer as it goes over the wire; `more`: further headers."""
    answer = errors.answer_to(fault)
    phrase = HTTPStatus(answer.status_code).phrase
    headers = [name + b": " + value for name, value in (*answer.raw_headers, *SAFE)]
    head = [f"HTTP/1.1 {answer.status_code} {phrase}".encode(), *headers, *more, b"", b""]
    return b"\r\n".join(head) + bytes(answer.body)


_CLOSE = b"connection: close"
_TOO_MANY = _as_bytes(errors.Overloaded("too many connections are open"), _CLOSE)
_TOO_SLOW = _as_bytes(errors.TooSlow("the request did not arrive in time"), _CLOSE)
_HEAD_TOO_LARGE = _as_bytes(
    errors.HeadTooLarge(f"request line and headers are longer than {MOST_HEAD_BYTES} bytes"), _CLOSE
)
_REFUSALS = {reason: _as_bytes(errors.Overloaded(detail)) for reason, detail in DETAILS.items()}
