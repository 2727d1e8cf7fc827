"""Events sent in the background, many to a request: `EventSender`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from adscent_client.answers import Event, Stored
from adscent_client.client import Client
from adscent_client.errors import AdscentError, Overloaded, RateLimited, Unreachable

_PASSING = (Overloaded, RateLimited, Unreachable)
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request's events: `stored`, or the `error` that lost them.

    An error of a fault that may pass is no outcome: those events are sent until they are stored.
    """

    events: Sequence[Event]
    stored: Stored | None = None
    error: AdscentError | None = None


class EventSender:
    """Collects events and sends them by `at_once` or after `every_s`, from a thread of its own.

    While the server cannot be reached events wait, up to `at_most`; then `add` returns False and
    the caller decides. Sending again is harmless: the server counts each event once. `on_outcome`
    is called in the sender's thread. Leaving the `with` block sends what waits, for at most
    `closing_s`.
    """

    def __init__(
        self,
        client: Client,
        *,
        at_once: int = 500,
        every_s: float = 0.2,
        at_most: int = 100_000,
        closing_s: float = 10.0,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._client, self._at_once, self._every_s = client, at_once, every_s
        self._at_most, self._closing_s, self._on_outcome = at_most, closing_s, on_outcome
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adscent-events", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, event: Event) -> bool:
        """Take an event for sending; False when too many wait already, and it was not taken."""
        with self._changed:
            if len(self._waiting) >= self._at_most or self._closing.is_set():
                return False
            self._waiting.append(event)
            if len(self._waiting) >= self._at_once:
                self._changed.notify()
        return True

    def close(self) -> int:
        """Send what waits; returns how many events were not sent in time."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(self._closing_s)
        self._given_up.set()
        return len(self._waiting)

    def _run(self) -> None:
        while not self._given_up.is_set():
            with self._changed:
                if len(self._waiting) < self._at_once and not self._closing.is_set():
                    self._changed.wait(self._every_s)
                some = [self._waiting[n] for n in range(min(self._at_once, len(self._waiting)))]
            if some:
                self._send(some)
            elif self._closing.is_set():
                return

    def _send(self, some: Sequence[Event]) -> None:
        try:
            outcome = Outcome(some, self._client.report(some))
        except _PASSING:
            self._given_up.wait(_AGAIN_S)
            return
        except AdscentError as error:
            outcome = Outcome(some, error=error)
        with self._changed:
            for _ in some:
                self._waiting.popleft()
        if self._on_outcome is not None:
            self._on_outcome(outcome)
