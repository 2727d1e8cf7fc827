"""Visits of a soak, in a process of their own: a page is asked for, seen, and sometimes clicked.

`python -m jobs.bench.soak_visits < plan.json` answers with a JSON `Seen`. Every event is sent until
it is acknowledged, ever more slowly, and some are sent again although they were, as by callers who
missed the answer. A decision that is refused is not asked for again: nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import msgspec

from jobs.demo.client import Client, RequestFailed

_AGAIN_S, _AGAIN_MOST_S = 1.0, 15.0
_REPEATED = 0.02
_CLICK_S = 3.0
_TRIES = 30
_MOST_OPEN = 1000
_BUSY = (503, None)
"""Refused, with Retry-After; or no answer in time."""


class VisitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Visits for `seconds`: `rate` a second, or `open` ones at a time, each followed by the next.

    `bodies`: requests for a decision, taken in turn; latencies are put together by `period_s`.
    """

    port: int
    secret: str
    bodies: list[str]
    seconds: float
    period_s: float
    open: int
    seed: int
    rate: float | None = None


class Period(msgspec.Struct, frozen=True):
    """Latencies in ms of the requests of one period, from when each was due."""

    decisions: int
    decision_p50: float
    decision_p99: float
    events_p50: float
    events_p99: float


class Seen(msgspec.Struct, frozen=True):
    """What came of it: acknowledged events by ad, and answers that should not have been.

    `due`: visits that were to begin, `visits`: those that had their ads; the others were refused,
    not answered in time, or not begun since too many were open. `again`: events sent again because
    there was no answer, or on purpose.
    """

    due: int
    visits: int
    seconds: float
    periods: list[Period]
    impressions: dict[int, int]
    clicks: dict[int, int]
    again: int
    failed: int
    first_failed: str

    @property
    def visits_per_s(self) -> float:
        """Visits that ended, a second."""
        return self.visits / self.seconds


class _Ad(msgspec.Struct):
    ad_id: int
    token: str


class _Decision(msgspec.Struct):
    ads: list[_Ad]


class _Stored(msgspec.Struct):
    accepted: int
    duplicate: int


class _Visits:
    """Sends the visits of a plan."""

    def __init__(self, plan: VisitPlan) -> None:
        self._plan, self._client = plan, Client(plan.port, plan.secret)
        self._bodies = [body.encode() for body in plan.bodies]
        self._random = random.Random(plan.seed)  # noqa: S311 - not for secrets
        self._tasks: set[asyncio.Task[None]] = set()
        self._shown: Counter[int] = Counter()
        self._clicked: Counter[int] = Counter()
        self._decision_ms: list[float] = []
        self._events_ms: list[float] = []
        self._periods: list[Period] = []
        self._due = self._visits = self._again = self._failed = 0
        self._first_failed = ""

    async def run(self) -> Seen:
        """Send everything, wait for the last acknowledgement."""
        started = time.perf_counter()
        closing = asyncio.create_task(self._close_periods())
        await (self._paced(started) if self._plan.rate else self._crowd(started))
        seconds = time.perf_counter() - started
        while self._tasks:
            await asyncio.wait(self._tasks)
        closing.cancel()
        if not self._periods:
            self._close_period()
        self._client.close()
        return Seen(
            *(
                self._due,
                self._visits,
                seconds,
                self._periods,
                dict(self._shown),
                dict(self._clicked),
            ),
            *(self._again, self._failed, self._first_failed),
        )

    async def _paced(self, started: float) -> None:
        """One visit after another on schedule, whatever became of those before."""
        assert self._plan.rate is not None  # noqa: S101 - the caller looked
        for number in range(int(self._plan.rate * self._plan.seconds)):
            due = started + number / self._plan.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(self._tasks) < _MOST_OPEN:
                self._start(self._visit(due))
            else:
                self._due += 1

    async def _crowd(self, started: float) -> None:
        """As many visits at once as may be open, until the time is over."""

        async def one_after_another() -> None:
            while time.perf_counter() < started + self._plan.seconds:
                await self._visit(time.perf_counter())

        await asyncio.gather(*(one_after_another() for _ in range(self._plan.open)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _visit(self, due: float) -> None:
        body = self._bodies[self._due % len(self._bodies)]
        self._due += 1
        try:
            answer = await self._client.post("/v1/decisions", body)
        except RequestFailed as error:
            self._note(error)
            return
        self._decision_ms.append(1000 * (time.perf_counter() - due))
        ads = msgspec.json.decode(answer, type=_Decision).ads
        if ads:
            await self._tell("impression", ads, self._shown)
        clicked = [ad for ad in ads if self._random.random() < _click_rate(ad.ad_id)]
        if clicked:
            self._start(self._click(clicked))
        self._visits += 1

    async def _click(self, ads: list[_Ad]) -> None:
        await asyncio.sleep(self._random.random() * _CLICK_S)
        await self._tell("click", ads, self._clicked)

    async def _tell(self, kind: str, ads: list[_Ad], ledger: Counter[int]) -> None:
        """Send events until they are acknowledged, and enter them; some once more on purpose."""
        body = msgspec.json.encode({"events": [{"type": kind, "token": ad.token} for ad in ads]})
        if not await self._acknowledged(body, len(ads)):
            return
        ledger.update(ad.ad_id for ad in ads)
        if self._random.random() < _REPEATED:
            self._again += 1
            await self._acknowledged(body, len(ads))

    async def _acknowledged(self, body: bytes, count: int) -> bool:
        began = time.perf_counter()
        for tried in range(_TRIES):
            try:
                answer = await self._client.post("/v1/events", body)
            except RequestFailed as error:
                self._note(error)
                self._again += 1
                await asyncio.sleep(min(_AGAIN_S * 2**tried, _AGAIN_MOST_S))
                continue
            self._events_ms.append(1000 * (time.perf_counter() - began))
            stored = msgspec.json.decode(answer, type=_Stored)
            if stored.accepted + stored.duplicate == count:
                return True
            self._fail(f"of {count} events: {answer[:300].decode(errors='replace')}")
            return False
        self._fail(f"{count} events were not acknowledged after {_TRIES} tries")
        return False

    def _note(self, error: RequestFailed) -> None:
        """Being too busy is an answer; anything else is a fault."""
        if error.status not in _BUSY:
            self._fail(str(error))

    def _fail(self, text: str) -> None:
        self._failed += 1
        self._first_failed = self._first_failed or text

    async def _close_periods(self) -> None:
        while True:
            await asyncio.sleep(self._plan.period_s)
            self._close_period()

    def _close_period(self) -> None:
        decisions, events = sorted(self._decision_ms), sorted(self._events_ms)
        self._decision_ms, self._events_ms = [], []
        if decisions and events:
            halves = (*_percentiles(decisions), *_percentiles(events))
            self._periods.append(Period(len(decisions), *halves))


def _click_rate(ad_id: int) -> float:
    """Between 2 and 8 clicks of a hundred impressions: something to learn, nothing suspicious."""
    return 0.02 + 0.06 * (ad_id % 10) / 10


def _percentiles(ascending: list[float]) -> tuple[float, float]:
    last = len(ascending) - 1
    return ascending[last // 2], ascending[int(last * 0.99)]


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=VisitPlan)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_Visits(given).run())))
