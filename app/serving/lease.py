"""For how long a worker may choose ads without word from the database.

Cut off, it cannot hear of a pause; others wait for it until its lease is over, and then confirm
pauses without it. So from then on it serves nothing until it is current again.
"""

from __future__ import annotations

import math
import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where there is such a clock."""


class Lease:
    """Runs for `seconds` from when a report was sent that the database took.

    Without `seconds` it never ends. A new one with an end has not begun.
    """

    __slots__ = ("_until_s", "seconds")

    def __init__(self, seconds: float = math.inf) -> None:
        self.seconds = seconds
        self._until_s = math.inf if seconds == math.inf else -math.inf

    @staticmethod
    def now() -> float:
        """The clock that leases run by, in seconds."""
        return time.clock_gettime(_CLOCK)

    def holds(self) -> bool:
        """Whether the worker may serve."""
        return self.now() < self._until_s

    def renew(self, sent_s: float) -> None:
        """A report that was sent at `sent_s` was taken."""
        self._until_s = sent_s + self.seconds

    def end(self) -> None:
        """Others may have confirmed changes without this worker."""
        self._until_s = -math.inf
