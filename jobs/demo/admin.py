"""The administrator's calls: plain HTTP, as anyone with an admin key would make them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from jobs.demo.errors import ActFailed
from jobs.demo.ledger import Ledger

_TIMEOUT_S = 30.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Change:
    """A change that every worker has confirmed.

    `asked_s`, `confirmed_s`: the monotonic clock just before the call and just after its 200.
    """

    workers: int
    asked_s: float
    confirmed_s: float

    @property
    def ms(self) -> float:
        """How long the confirmation took."""
        return (self.confirmed_s - self.asked_s) * 1000


class Admin:
    """Calls one server with an admin key; every call is counted in the ledger."""

    def __init__(self, port: int, secret: str, ledger: Ledger) -> None:
        self._ledger = ledger
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=_TIMEOUT_S,
            # The server closes idle connections after 5 s: give them up before it does.
            limits=httpx.Limits(keepalive_expiry=2.0),
            trust_env=False,
        )

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and body of an answer with a 2xx status. Raises `ActFailed` for any other."""
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._failed(f"{method} {path}: {type(error).__name__} {error}") from error
        if not answer.is_success:
            raise self._failed(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
        self._ledger.count(1)
        return answer.status_code, answer.json()

    async def set_state(self, ad_id: int, state: str) -> Change:
        """Change an ad's state, again until every worker has confirmed (200, not 202)."""
        asked_s = time.monotonic()
        for _ in range(_TRIES):
            status, body = await self.call("PATCH", f"/v1/ads/{ad_id}", {"state": state})
            confirmed_s = time.monotonic()
            if status == 200:
                return Change(len(body["acknowledged"]), asked_s, confirmed_s)
        raise ActFailed(f"ad {ad_id}: workers {body['pending']} did not confirm {state!r} in time")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _failed(self, fault: str) -> ActFailed:
        self._ledger.count(1, [fault])
        return ActFailed(fault)
