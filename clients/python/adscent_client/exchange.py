"""Between a call and HTTP: what is sent, and what the answer means. Shared by both clients."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from adscent_client.call import Answer, Call
from adscent_client.errors import AnswerInvalid, problem_error

_GRACE_S = 0.25
"""How much longer than its deadline a call waits for the answer to arrive."""


def headers_of(key: str | None) -> dict[str, str]:
    """What every request carries."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def arguments(call: Call[Any], timeout_s: float) -> dict[str, Any]:
    """What httpx is called with."""
    given: dict[str, Any] = {"params": call.params, "timeout": timeout_s, "headers": {}}
    if call.body is not None:
        given["content"] = msgspec.json.encode(call.body)
        given["headers"]["Content-Type"] = "application/json"
    if call.deadline_ms is not None:
        given["headers"]["X-Deadline-Ms"] = str(call.deadline_ms)
        given["timeout"] = min(timeout_s, call.deadline_ms / 1000 + _GRACE_S)
    return given


def read(call: Call[Answer], answer: httpx.Response) -> Answer:
    """The answer as its type. Raises `ProblemError` or `AnswerInvalid`."""
    if not answer.is_success:
        raise problem_error(answer.status_code, answer.content, answer.headers.get("Retry-After"))
    try:
        return msgspec.json.decode(answer.content, type=call.answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AnswerInvalid(f"{call.method} {call.path}: {error}") from error
