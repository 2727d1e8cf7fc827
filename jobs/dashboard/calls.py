"""Changes, made through the HTTP API of `serve` with the key that someone logged in with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from jobs.dashboard.sessions import Session, Sessions

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a 2xx status. 202 says that some workers have not confirmed in time."""

    status: int
    body: Any

    @property
    def acknowledged(self) -> list[str]:
        """The workers on which a change holds."""
        return list(self.body.get("acknowledged", ()))

    @property
    def pending(self) -> list[str]:
        """The workers that have not confirmed a change yet."""
        return list(self.body.get("pending", ()))


class CallFailed(Exception):
    """A call without a 2xx answer; the message is for people, `remedies` say what to do."""

    def __init__(self, message: str, remedies: list[str] | None = None) -> None:
        super().__init__(message)
        self.remedies = remedies or []


class Calls:
    """Calls `serve` at `url`, such as http://127.0.0.1:8080."""

    def __init__(self, url: str, sessions: Sessions) -> None:
        self.url, self._sessions = url, sessions
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=_TIMEOUT_S,
            # The server closes idle connections after 5 s: give them up before it does.
            limits=httpx.Limits(keepalive_expiry=2.0),
            trust_env=False,
        )

    async def make(self, session: Session, method: str, path: str, body: object = None) -> Answer:
        """Make one call with the session's key. Raises `CallFailed`."""
        if not self._sessions.is_live(session):
            raise CallFailed("You are logged out.", ["Log in again; nothing was changed."])
        headers = {"Authorization": f"Bearer {session.secret}"}
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise CallFailed(
                f"`adscent serve` does not answer at {self.url} ({type(error).__name__}).",
                ["Start `adscent serve`, or set ADSCENT_DASHBOARD_API to where it listens."],
            ) from error
        if not answer.is_success:
            raise _failed(answer)
        return Answer(answer.status_code, answer.json())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _failed(answer: httpx.Response) -> CallFailed:
    """What a problem document says, in one sentence and its remedies."""
    try:
        problem = answer.json()
        message = f"{problem['title']}: {problem['detail']}"
        remedies = [str(one["remedy"]) for one in problem.get("errors", ())]
    except (ValueError, KeyError, TypeError):
        return CallFailed(f"The server answered {answer.status_code}.", ["Look into its log."])
    return CallFailed(message, list(dict.fromkeys(remedies)))
