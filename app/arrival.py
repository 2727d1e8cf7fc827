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

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import errors, metrics
from app.overload import ARRIVED, DETAILS, Limiter

MOST_CONNECTIONS, LIMITER = "most_connections", "limiter"
"""Where in the application's state the limit of connections and the `Limiter` stand."""

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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or answer 503 and close it where there are too many."""
        super().connection_made(transport)
        self._socket = _own_view(transport)
        self._limiter = self.app_state.get(LIMITER)
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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Note when these bytes came, and parse them; refuse a request without hope unparsed."""
        waited_s = _waited_s(self._socket)
        self._read_s = time.perf_counter() - waited_s
        limiter = self._limiter if self._is_idle() else None
        reason = None if limiter is None else limiter.hopeless(data, waited_s)
        if reason is None:
            super().data_received(data)
        else:
            self._refuse(reason)

    def on_message_begin(self) -> None:
        """Start a request: its first bytes have just been read."""
        super().on_message_begin()
        self._is_between_requests = False
        self.scope["state"][ARRIVED] = self._read_s

    def on_message_complete(self) -> None:
        """End a request, whose last bytes have just been read."""
        self._is_between_requests = True
        super().on_message_complete()

    def _is_idle(self) -> bool:
        """Whether the next byte starts a request that nothing stands before."""
        return self._is_between_requests and (self.cycle is None or self.cycle.response_complete)

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


def _as_bytes(detail: str, *more: bytes) -> bytes:
    """A whole 503 as it goes over the wire; `more`: further headers."""
    answer = errors.answer_to(errors.Overloaded(detail))
    headers = [name + b": " + value for name, value in answer.raw_headers]
    head = [b"HTTP/1.1 503 Service Unavailable", *headers, *more, b"", b""]
    return b"\r\n".join(head) + bytes(answer.body)


_TOO_MANY = _as_bytes("too many connections are open", b"connection: close")
_REFUSALS = {reason: _as_bytes(detail) for reason, detail in DETAILS.items()}
