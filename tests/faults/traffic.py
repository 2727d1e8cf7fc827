"""Visitors over real HTTP: each asks for ads, then reports its events until they are acknowledged.

A visitor does what the documentation asks of a client: a 503, or no answer, means: send it again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

PLACEMENT = "faults"
"""The placement of every decision here: it marks the events that are accounted for one by one."""

VISITORS = 8
_PAUSE_S = 0.05
_AGAIN_S = 0.25
_AT_ONCE = 200
_CLICKED = 0.15
_TIMEOUT_S = 15.0

BROKEN = {"ReadError", "RemoteProtocolError", "WriteError"}
"""How a request fails that was under way on a connection of a process that is killed."""
NOBODY = {"ConnectError"}
"""How one fails while nobody listens."""

Key = tuple[str, int, str]
"""Decision, slot and type: what an event is."""


@dataclass
class Ledger:
    """What the visitors were told.

    `sent`: every event that was sent at least once; `acknowledged`: those with a 200;
    `rejected`: those that were refused for good, by reason; `answers`: when each decision was
    answered (monotonic seconds); `failures`: when and how each of the others failed.
    """

    sent: set[Key] = field(default_factory=set)
    acknowledged: set[Key] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    duplicates: int = 0
    answers: list[float] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    acknowledged_at: list[float] = field(default_factory=list)

    def failed_since(self, moment: float) -> Counter[str]:
        """How the decisions that failed since then failed."""
        return Counter(why for at, why in self.failures if at >= moment)

    def answered_since(self, moment: float) -> int:
        """How many decisions were answered since then."""
        return sum(at >= moment for at in self.answers)

    def longest_gap_s(self, since: float) -> float:
        """The longest time without an answered decision."""
        moments = sorted([since, *(at for at in self.answers if at >= since)])
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def stored_again_s(self, since: float) -> float:
        """Seconds from a moment to the first acknowledgement of events after it."""
        return min(at for at in self.acknowledged_at if at >= since) - since


class Visitors:
    """Traffic that goes on until it is stopped; one `Ledger` over several runs."""

    def __init__(self, port: int, secret: str, ledger: Ledger, seed: int = 1) -> None:
        self._url, self.ledger = f"http://127.0.0.1:{port}", ledger
        self._headers = {"authorization": f"Bearer {secret}"}
        self._random = random.Random(seed)  # noqa: S311  # no secret hangs on it
        self._stopping = asyncio.Event()
        self._waiting = 0

    async def run(self) -> None:
        """Visit until `stop`, then send what still waits."""
        self._stopping.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(VISITORS):
                group.create_task(self._visit())

    def stop(self) -> None:
        """No more decisions; `run` ends once everything has its answer."""
        self._stopping.set()

    async def _visit(self) -> None:
        outbox: list[tuple[Key, dict[str, str]]] = []
        news = asyncio.Event()
        sending = asyncio.create_task(self._send_all(outbox, news))
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=_TIMEOUT_S
        ) as client:
            while not self._stopping.is_set():
                outbox += await self._decided(client)
                news.set()
                await asyncio.sleep(_PAUSE_S * (0.5 + self._random.random()))
        news.set()
        await sending

    async def _decided(self, client: httpx.AsyncClient) -> list[tuple[Key, dict[str, str]]]:
        """One decision, and the events that follow from it."""
        asked = {
            "user": {"geo": self._random.choice(("us", "ca", "de")), "device": "phone"},
            "slots": 3,
            "placement": PLACEMENT,
            "per_advertiser": 3,
        }
        try:
            answer = await client.post("/v1/decisions", json=asked)
        except httpx.TransportError as error:
            self.ledger.failures.append((time.monotonic(), type(error).__name__))
            return []
        if answer.status_code != 200:
            self.ledger.failures.append((time.monotonic(), str(answer.status_code)))
            return []
        self.ledger.answers.append(time.monotonic())
        return self._events(answer.json())

    def _events(self, decision: dict[str, Any]) -> list[tuple[Key, dict[str, str]]]:
        found = []
        for ad in decision["ads"]:
            kinds = ["impression"] + ["click"] * (self._random.random() < _CLICKED)
            for kind in kinds:
                key = (decision["decision_id"], ad["slot"], kind)
                found.append((key, {"type": kind, "token": ad["token"]}))
        return found

    async def _send_all(
        self, outbox: list[tuple[Key, dict[str, str]]], news: asyncio.Event
    ) -> None:
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=_TIMEOUT_S
        ) as client:
            while outbox or not self._stopping.is_set():
                news.clear()
                part = outbox[:_AT_ONCE]
                if not part:
                    await news.wait()
                elif await self._is_acknowledged(client, part):
                    del outbox[: len(part)]
                else:
                    await asyncio.sleep(_AGAIN_S)

    async def _is_acknowledged(
        self, client: httpx.AsyncClient, part: list[tuple[Key, dict[str, str]]]
    ) -> bool:
        self.ledger.sent.update(key for key, _ in part)
        try:
            answer = await client.post("/v1/events", json={"events": [event for _, event in part]})
        except httpx.TransportError as error:
            self.ledger.refusals[type(error).__name__] += 1
            return False
        if answer.status_code != 200:
            self.ledger.refusals[str(answer.status_code)] += 1
            return False
        self._note(part, answer.json())
        return True

    def _note(self, part: list[tuple[Key, dict[str, str]]], answer: dict[str, Any]) -> None:
        refused = {item["index"]: item["reason"] for item in answer["rejected"]}
        self.ledger.rejected.update(refused.values())
        self.ledger.accepted += answer["accepted"]
        self.ledger.duplicates += answer["duplicate"]
        self.ledger.acknowledged_at.append(time.monotonic())
        for index, (key, _) in enumerate(part):
            if index not in refused:
                self.ledger.acknowledged.add(key)
