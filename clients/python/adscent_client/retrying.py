"""When a call is made again, and after how long. Pure: time and chance are given."""

from __future__ import annotations

from dataclasses import dataclass

from adscent_client.errors import AdscentError, ProblemError, Unreachable

_LATER = (429, 503)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is made in all, and how long it waits between.

    Waits grow from `first_s` by doubling up to `longest_s`, each drawn between half and all of it,
    so that many clients do not come back together; a Retry-After is honoured where it is longer.
    """

    attempts: int = 3
    first_s: float = 0.1
    longest_s: float = 5.0

    def wait_s(self, attempt: int, error: AdscentError, chance: float) -> float | None:
        """How long to wait after attempt number `attempt` (from 1) failed; None to give up.

        `chance`: a draw from [0, 1).
        """
        if attempt >= self.attempts or not _is_passing(error):
            return None
        grown = min(self.first_s * 2.0 ** (attempt - 1), self.longest_s)
        asked = error.retry_after_s if isinstance(error, ProblemError) else None
        return max(grown * (0.5 + 0.5 * chance), asked or 0.0)


def _is_passing(error: AdscentError) -> bool:
    if isinstance(error, ProblemError):
        return error.status in _LATER
    return isinstance(error, Unreachable)
