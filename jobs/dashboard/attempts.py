"""How often a login may fail before one has to wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

_WITHIN_S = 60.0


class Attempts:
    """Failed logins of the last minute, for each address and for all together.

    `clock`: seconds that only go up. Memory is bounded: past `of_all` nobody is counted any more,
    everybody waits.
    """

    def __init__(self, clock: Callable[[], float], *, of_one: int = 5, of_all: int = 100) -> None:
        self._clock, self._of_one, self._of_all = clock, of_one, of_all
        self._failed: deque[tuple[float, str]] = deque()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try again; 0 if it may now."""
        now = self._clock()
        while self._failed and self._failed[0][0] <= now - _WITHIN_S:
            self._failed.popleft()
        own = [at for at, who in self._failed if who == address]
        if len(own) >= self._of_one:
            return own[-self._of_one] + _WITHIN_S - now
        if len(self._failed) >= self._of_all:
            return self._failed[0][0] + _WITHIN_S - now
        return 0.0

    def fail(self, address: str) -> None:
        """Count a failed login."""
        self._failed.append((self._clock(), address))
