"""How a worker that stops leaves its clients: no request that was sent is lost.

uvicorn closes idle connections at once, and a request that is on its way on one of them ends
unanswered. Here such a connection stays a little longer: what still comes is answered, with the
word to close, and the client's next request opens a connection to another worker.
"""

from __future__ import annotations

from app.connection.arrival import TimedProtocol

DRAIN_S = 1.0
"""How long an idle connection is left open: longer than a request is on its way."""


class DrainingProtocol(TimedProtocol):
    """HTTP/1.1 of `app.connection.arrival`, with another end."""

    _is_draining = False

    def shutdown(self) -> None:
        """Answer what is under way and what is still sent, then close."""
        self._is_draining = True
        if not self._is_idle() and self.cycle is not None:
            self.cycle.keep_alive = False
        self.loop.call_later(DRAIN_S, self._close_if_idle)

    def on_headers_complete(self) -> None:
        """Start to answer; when draining, as the last on this connection."""
        super().on_headers_complete()
        if self._is_draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def _close_if_idle(self) -> None:
        if not self.transport.is_closing() and self._is_idle():
            self.transport.close()
