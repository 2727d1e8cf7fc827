"""Ends connections on which a client takes too long: to send its request, or to take the answer.

A client that sends a byte now and then, or never reads, costs nothing but its connection; enough of
them would take all there are. One look a second goes over the open connections, so that a request
itself pays for no timer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

LOOK_EVERY_S = 1.0


class Connection(Protocol):
    """What is looked at: the worker's end of a connection."""

    @property
    def sending_since_s(self) -> float | None:
        """Since when the client owes (the rest of) a request, by `time.perf_counter`."""

    @property
    def is_stalled(self) -> bool:
        """Whether bytes wait that the client does not take."""

    def give_up(self) -> None:
        """Answer that the request came too slowly, and close."""

    def abort(self) -> None:
        """Close without a word; what was not sent is lost."""


class SlowClients:
    """The open connections of a worker. `timeout_s`: how long a client may take."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._open: set[Connection] = set()
        self._stalled: dict[Connection, float] = {}
        self._next: asyncio.TimerHandle | None = None

    def watch(self, connection: Connection) -> None:
        """A connection that is open from now on."""
        self._open.add(connection)
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def forget(self, connection: Connection) -> None:
        """A connection that is gone."""
        self._open.discard(connection)
        self._stalled.pop(connection, None)

    def _look(self) -> None:
        late_s = time.perf_counter() - self._timeout_s
        for connection in tuple(self._open):
            self._judge(connection, late_s)
        self._next = None
        if self._open:
            self._next = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _judge(self, connection: Connection, late_s: float) -> None:
        if connection.is_stalled:
            if self._stalled.setdefault(connection, time.perf_counter()) < late_s:
                connection.abort()
            return
        self._stalled.pop(connection, None)
        since_s = connection.sending_since_s
        if since_s is not None and since_s < late_s:
            connection.give_up()
