"""The visitors, in a process of their own so that drawing the view never delays a request.

Each asks for a page of ads, sees them, and clicks by the market's true probabilities, after a delay
with the heavy tail of real ones. Run as `python -m jobs.demo.traffic SEED START_MS PORT`, the API
key on the first line of standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np

from jobs.demo.client import Client, RequestFailed
from jobs.demo.messages import Answer, Order, Tick
from jobs.demo.truth import Judge
from jobs.demo.world import DECISIONS_PER_S, REGULARS, SLOTS, demo_market
from jobs.market import Market, Visitors
from models.types import Int64s

_TICK_S = 0.25
_DRAWN = 4096
_MOST_OPEN = 64
_SEEN_AFTER_S = 0.03
_END_S = 10.0


class _Ad(msgspec.Struct):
    ad_id: int
    token: str


class _Decision(msgspec.Struct):
    snapshot_id: str
    certified: bool
    ads: list[_Ad]


class _Stored(msgspec.Struct):
    accepted: int
    duplicate: int
    rejected: list[dict[str, Any]]


_Answered = TypeVar("_Answered")


class Traffic:
    """Sends visitors at a steady pace until told to stop; `take_tick` gives what has happened."""

    def __init__(self, market: Market, client: Client) -> None:
        self._market, self._client, self.judge = market, client, Judge(market)
        self._random = np.random.default_rng((market.seed, 1))
        self._visitors = market.visitors(self._random, 0)
        self._next = 0
        self._seen = np.zeros(market.size, np.int64)
        self._open: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._answers: list[Answer] = []
        self._faults: list[str] = []
        self._requests = self._impressions = self._clicks = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Let visitors come; then wait for the requests under way and forget later clicks."""
        due = time.monotonic()
        while not stop.is_set():
            # After a stall the pace goes on as before: no crowd that only the stall has made.
            due = max(due + 1 / DECISIONS_PER_S, time.monotonic() - 0.1)
            await asyncio.sleep(due - time.monotonic())
            if len(self._open) < _MOST_OPEN:
                self._start(self._visit())
        for timer in self._timers:
            timer.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=_END_S)

    def take_tick(self) -> Tick:
        """Everything since the last call."""
        tick = Tick(self._answers, self._requests, self._faults, self._impressions, self._clicks)
        self._answers, self._faults = [], []
        self._requests = self._impressions = self._clicks = 0
        return tick

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._faults.append(f"{type(error).__name__}: {error}")

    async def _visit(self) -> None:
        visitor = self._visitor()
        offered = self.judge.eligible(visitor, _now_ms())
        excluded = self._excluded(offered)
        asked = _request(visitor, excluded)
        sent_s = time.monotonic()
        decision = await self._post("/v1/decisions", asked, _Decision)
        if decision is None or not decision.ads:
            return
        took_ms = (time.monotonic() - sent_s) * 1000
        shown = [ad.ad_id for ad in decision.ads]
        self._note(decision, visitor, shown, np.setdiff1d(offered, excluded), sent_s, took_ms)
        await self._see(decision.ads, self.judge.clicks(visitor, shown, _now_ms()).tolist())

    def _visitor(self) -> Visitors:
        if self._next == len(self._visitors):
            self._visitors, self._next = self._market.visitors(self._random, _DRAWN), 0
        self._next += 1
        return self._visitors.take(np.array([self._next - 1]))

    def _excluded(self, offered: Int64s) -> Int64s:
        """For a regular visitor the most-shown of the ads, up to all but one page."""
        if self._random.random() >= REGULARS or len(offered) <= SLOTS:
            return offered[:0]
        count = int(self._random.integers(0, len(offered) - SLOTS))
        most = offered[np.argsort(-self._seen[offered - 1], kind="stable")[:count]]
        return most[self._seen[most - 1] > 0]

    def _note(
        self,
        decision: _Decision,
        visitor: Visitors,
        shown: list[int],
        others: Int64s,
        sent_s: float,
        took_ms: float,
    ) -> None:
        now_ms = _now_ms()
        self._seen[np.array(shown) - 1] += 1
        gains = self.judge.weigh(visitor, shown, others if len(others) else np.array(shown), now_ms)
        # An ad whose flight began or ended while the request was under way is none.
        strays = self.judge.strays(visitor, shown, now_ms)
        strays = self.judge.strays(visitor, strays, now_ms - int(took_ms) - 1)
        certified, snapshot_id = decision.certified, decision.snapshot_id
        self._answers.append(Answer(sent_s, took_ms, snapshot_id, certified, shown, strays, *gains))

    async def _see(self, ads: Sequence[_Ad], click_rates: Sequence[float]) -> None:
        await asyncio.sleep(_SEEN_AFTER_S)
        await self._tell("impression", [ad.token for ad in ads])
        for ad, rate in zip(ads, click_rates, strict=True):
            if self._random.random() < rate:
                self._click_later(ad.token)

    def _click_later(self, token: str) -> None:
        def click() -> None:
            self._timers.discard(timer)
            self._start(self._tell("click", [token]))

        delay_s = float(self._market.click_delay_s(self._random)[0])
        timer = asyncio.get_running_loop().call_later(min(delay_s, 86_400.0), click)
        self._timers.add(timer)

    async def _tell(self, kind: str, tokens: Sequence[str]) -> None:
        events = [{"type": kind, "token": token} for token in tokens]
        stored = await self._post("/v1/events", {"events": events}, _Stored)
        if stored is None:
            return
        if stored.accepted != len(events):
            self._faults.append(f"POST /v1/events: not all of {kind} accepted: {stored}")
        self._impressions += stored.accepted * (kind == "impression")
        self._clicks += stored.accepted * (kind == "click")

    async def _post(self, path: str, body: object, kind: type[_Answered]) -> _Answered | None:
        self._requests += 1
        try:
            return msgspec.json.decode(
                await self._client.post(path, msgspec.json.encode(body)), type=kind
            )
        except (RequestFailed, msgspec.MsgspecError) as error:
            self._faults.append(str(error))
            return None


def _request(visitor: Visitors, excluded: Int64s) -> dict[str, object]:
    user = visitor.features()
    placement = user.pop("placement")
    return {
        "user": user,
        "slots": SLOTS,
        "placement": placement,
        "exclude": excluded.tolist(),
        # The market's own best choice, which the page is compared with, knows no such limit.
        "per_advertiser": SLOTS,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _follow_orders(traffic: Traffic, reader: asyncio.StreamReader) -> None:
    """Obey until standard input ends, which it also does when the stage is gone."""
    async for line in reader:
        traffic.judge.set_inactive(msgspec.json.decode(line, type=Order).inactive)


async def _report(traffic: Traffic) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        _send(traffic.take_tick())


def _send(tick: Tick) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(tick) + b"\n")
    sys.stdout.buffer.flush()


async def _main(seed: int, start_ms: int, port: int) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    client = Client(port, (await reader.readline()).decode().strip())
    traffic, stop = Traffic(demo_market(seed, start_ms), client), asyncio.Event()
    reporting = asyncio.create_task(_report(traffic))
    obeying = asyncio.create_task(_follow_orders(traffic, reader))
    obeying.add_done_callback(lambda _: stop.set())
    await traffic.run(stop)
    reporting.cancel()
    _send(traffic.take_tick())
    client.close()


if __name__ == "__main__":
    asyncio.run(_main(*(int(argument) for argument in sys.argv[1:4])))
