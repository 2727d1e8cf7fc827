"""What can go wrong with a call. Nothing of httpx leaves this package."""

from __future__ import annotations

from typing import Any

import msgspec


class FieldFault(msgspec.Struct, frozen=True):
    """One value to mend: where it stands, what it is, what is allowed, and what to do."""

    field: str
    value: Any = None
    limit: str = ""
    remedy: str = ""


class Problem(msgspec.Struct, frozen=True):
    """The server's own account of a fault (RFC 9457)."""

    title: str
    detail: str = ""
    errors: list[FieldFault] = []


class AdscentError(Exception):
    """Root of all errors of this package."""


class Unreachable(AdscentError):
    """No answer came: no connection, or none in time. What was asked may have happened or not."""


class AnswerInvalid(AdscentError):
    """An answer that is not what this version of the client understands."""


class ProblemError(AdscentError):
    """The server refused; `status` is HTTP's, `retry_after_s` how long it asks to wait."""

    def __init__(self, status: int, problem: Problem, retry_after_s: float | None = None) -> None:
        faults = "".join(
            f"; {fault.field}: {fault.limit}. {fault.remedy}" for fault in problem.errors
        )
        super().__init__(f"{status} {problem.title}: {problem.detail}{faults}")
        self.status = status
        self.problem = problem
        self.retry_after_s = retry_after_s


class Unauthorized(ProblemError):
    """401: no key, or one that is unknown, revoked or expired."""


class Forbidden(ProblemError):
    """403: the key lacks the scope."""


class NotFound(ProblemError):
    """404: no such thing."""


class Conflict(ProblemError):
    """409: not possible in the present state."""


class Invalid(ProblemError):
    """422: a value breaks its bounds; `problem.errors` says which."""


class RateLimited(ProblemError):
    """429: the key's requests of this moment are used up."""


class Overloaded(ProblemError):
    """503: not now. Asking again later is right."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
    429: RateLimited,
    503: Overloaded,
}


def problem_error(status: int, content: bytes, retry_after: str | None) -> ProblemError:
    """The error of an answer that is no success, whatever its body is."""
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = Problem(
            title="no problem document", detail=content[:200].decode(errors="replace")
        )
    return _BY_STATUS.get(status, ProblemError)(status, problem, _seconds(retry_after))


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After; the form with a date, which Adscent never sends, is ignored."""
    try:
        return None if retry_after is None else max(float(retry_after), 0.0)
    except ValueError:
        return None
