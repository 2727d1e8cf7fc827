"""Who is logged in: sessions in the memory of this process, named by a signed cookie."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from uuid import UUID

COOKIE = "adscent_dashboard"
_MOST = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `secret`: the API key it was made with, which calls are made with.

    `expires_s`: when it ends, by the clock of its `Sessions`; `csrf`: what forms have to carry.
    """

    id: str = field(repr=False)
    key_id: UUID
    name: str
    secret: str = field(repr=False)
    expires_s: float
    csrf: str = field(repr=False)


class Sessions:
    """Opens, finds and ends sessions. All of them end with the process: so does its secret.

    `clock`: seconds that only go up; `lifetime_s`: how long a login lasts.
    """

    def __init__(self, clock: Callable[[], float], lifetime_s: float) -> None:
        self._clock, self._lifetime_s = clock, lifetime_s
        self._signing = secrets.token_bytes(32)
        self._open: dict[str, Session] = {}

    def open(self, key_id: UUID, name: str, secret: str) -> Session:
        """A new session; of very many the oldest ends."""
        made = Session(
            id=secrets.token_urlsafe(32),
            key_id=key_id,
            name=name,
            secret=secret,
            expires_s=self._clock() + self._lifetime_s,
            csrf=secrets.token_urlsafe(32),
        )
        while len(self._open) >= _MOST:
            del self._open[next(iter(self._open))]
        self._open[made.id] = made
        return made

    def cookie(self, session: Session) -> str:
        """The cookie's value: the session's id, signed."""
        return f"{session.id}.{self.sign(session.id)}"

    def find(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None for none, a forged one, or one that has ended."""
        name, _, signature = (cookie or "").partition(".")
        if not self.signed(name, signature):
            return None
        found = self._open.get(name)
        return found if found is not None and self.is_live(found) else None

    def is_live(self, session: Session) -> bool:
        """Whether the session has neither expired nor been ended."""
        if self._clock() >= session.expires_s:
            self._open.pop(session.id, None)
        return session.id in self._open

    def close(self, session: Session) -> None:
        """End a session."""
        self._open.pop(session.id, None)

    def keep(self, key_ids: Set[UUID]) -> None:
        """End the sessions of all other keys: those were revoked."""
        for session in list(self._open.values()):
            if session.key_id not in key_ids:
                self.close(session)

    def sign(self, text: str) -> str:
        """A signature that only this process can make."""
        return hmac.new(self._signing, text.encode(), hashlib.sha256).hexdigest()

    def signed(self, text: str, signature: str) -> bool:
        """Whether the signature is ours; takes the same time for every wrong one."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode())
