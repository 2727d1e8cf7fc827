"""How many requests a second one key may send to this worker: a token bucket for each.

A bucket is of one worker and lives in its memory: a deployment of N workers admits up to N times
the rate. Exactness across workers would cost a round trip for each request, and what the limit is
for, that no caller takes the whole server, does not need it.
"""

from __future__ import annotations

_BURST_S = 2.0
"""What a caller that was silent may send at once, in seconds of its rate."""


class Bucket:
    """Fills with `rate` requests a second, up to two seconds' worth and at least one request.

    `refused`: how many requests it had none for since it was last full.
    """

    __slots__ = ("_at_s", "_level", "_most", "rate", "refused")

    def __init__(self, rate: float, now_s: float) -> None:
        self.rate, self.refused = rate, 0
        self._most = self._level = max(1.0, rate * _BURST_S)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Take one request: 0, or the seconds until there is one. `now_s` never goes back."""
        level = min(self._most, self._level + (now_s - self._at_s) * self.rate)
        self._at_s = now_s
        if level == self._most:
            self.refused = 0
        if level >= 1.0:
            self._level = level - 1.0
            return 0.0
        self._level = level
        self.refused += 1
        return (1.0 - level) / self.rate


def kept(known: Bucket | None, rate: float, now_s: float) -> Bucket | None:
    """A bucket of this rate, the `known` one where it has it; None where there is no limit (0)."""
    if rate <= 0.0:
        return None
    return known if known is not None and known.rate == rate else Bucket(rate, now_s)
