"""`adscent bench retrieval`: what it costs to find the best ads, exactly, among very many."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from app.serving.retrieval import Retrieved, UserSide, retrieve
from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.flat_scan import flat_scan
from jobs.bench.indexed_market import WIDE, IndexedMarket, indexed_market, repeated
from jobs.bench.machine import describe
from jobs.bench.market_scale import measured_worker
from jobs.bench.report import FORMAT, Measure, Report, Setting, measure, show, write
from jobs.bench.retrieval_trials import trials
from models.types import Bytes

COUNT = 11
"""Ads wanted where nothing else is said: ten slots and the next one, which sets a price."""
SHARES = (1.0, 0.1, 0.01, 0.001, 0.0001)
COUNTS = (1, 51, 200)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Catalogs by their numbers of ads, the last of them `times` times over, and so many users.

    `worker_ads`: of the deployment that is measured over HTTP, for `seconds` a round; 0: of none.
    """

    ads: tuple[int, ...] = (3_000, 30_000, 300_000)
    times: int = 10
    events: int = 1_000_000
    users: int = 128
    rounds: int = 5
    worker_ads: int = 300_000
    worker_events: int = 300_000
    seconds: float = 10.0


QUICK = Sizes((3_000, 30_000), 3, 100_000, 48, 3, 10_000, 20_000, 2.0)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0, met or not.

    Raises `BenchmarkBroken` for an answer that is not certified or not the flat scan's.
    """
    console, chosen = Console(), sizes or (QUICK if quick else Sizes())
    machine, found = describe(), dict[str, Measure]()
    for ads in chosen.ads:
        with console.status(f"{ads:,} ads"):
            market = indexed_market(seed, ads, chosen.events, chosen.users)
            found |= _by_size(market, chosen.rounds)
    with console.status(f"{len(market):,} ads in detail"):
        found |= _by_share(market, chosen.rounds) | _by_count(market, chosen.rounds)
        found |= trials(market, chosen.rounds)
    with console.status(f"{chosen.times * len(market):,} ads"):
        found |= _by_size(repeated(market, chosen.times, seed), min(chosen.rounds, 3))
    del market
    with console.status("strong interactions"):
        wide = indexed_market(seed, chosen.ads[-1], chosen.events, chosen.users, WIDE)
        found |= _compared(wide, "wide", "interactions four times as strong", chosen.rounds)
        found |= _by_share(wide, chosen.rounds, "wide_", SHARES[1:3])
        del wide
    if chosen.worker_ads:
        with console.status(f"a worker with {chosen.worker_ads:,} ads"):
            size = (chosen.worker_ads, chosen.worker_events, chosen.rounds, chosen.seconds)
            found |= asyncio.run(measured_worker(seed, *size))
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "events": chosen.events}
    settings |= {"users": chosen.users, "ads_wanted": COUNT, "worker_ads": chosen.worker_ads}
    made = Report("bench retrieval", FORMAT, machine, settings, found)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


def _by_size(market: IndexedMarket, rounds: int) -> dict[str, Measure]:
    return _compared(market, f"{len(market)}", "every ad eligible", rounds)


def _by_share(
    market: IndexedMarket, rounds: int, prefix: str = "", shares: tuple[float, ...] = SHARES
) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for share in shares:
        said = f"{100 * share:g} % of the ads eligible, any"
        found |= _compared(market, f"{prefix}share_{share:g}", said, rounds, share=share)
    return found


def _by_count(market: IndexedMarket, rounds: int) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for count in COUNTS:
        found |= _compared(market, f"best_{count}", f"the best {count}", rounds, count=count)
    return found | _limited(market, rounds)


def _compared(
    market: IndexedMarket,
    name: str,
    said: str,
    rounds: int,
    *,
    share: float = 1.0,
    count: int = COUNT,
) -> dict[str, Measure]:
    """Retrieval and the flat scan in turn, for the same users; answers have to be the same."""
    mask = market.eligible(share, seed=count)
    answers: list[Retrieved] = []

    def retrieval(user: UserSide) -> None:
        answers.append(retrieve(market.searchable, mask, user, count))

    def flat(user: UserSide) -> None:
        flat_scan(market.searchable, mask, user, count)

    _check(market, mask, count)
    taken = [(_each(market, retrieval), _each(market, flat)) for _ in range(rounds)]
    if not all(answer.certified for answer in answers):
        raise BenchmarkBroken(f"{name}: an answer was not certified")
    about = f"processor time of a decision's retrieval, {len(market):,} ads, {said}"
    return {
        f"mean_{name}": measure(
            [float(own.mean()) for own, _ in taken],
            "ms",
            f"{about}; mean over users; baseline: two flat scans by FAISS, in turn",
            baseline=[float(scan.mean()) for _, scan in taken],
        ),
        f"p99_{name}": measure(
            [float(np.quantile(own, 0.99)) for own, _ in taken],
            "ms",
            f"{about}; 99 % of users stay within it",
            baseline=[float(np.quantile(scan, 0.99)) for _, scan in taken],
        ),
        f"scored_{name}": measure(
            [max(_mean([answer.scored for answer in answers]), 1.0)],
            "ads",
            f"ads scored exactly for an answer, {said}; all answers were certified and equal the"
            " flat scan's; baseline: eligible ads",
            baseline=[max(float(np.bitwise_count(mask).sum()), 1.0)],
        ),
        f"bounded_{name}": measure(
            [max(_mean([answer.bounded for answer in answers]), 1.0)],
            "ads",
            f"ads whose bound along axes was computed for an answer, {said} (1 stands for none);"
            " baseline: all ads",
            baseline=[float(len(market))],
        ),
    }


def _limited(market: IndexedMarket, rounds: int) -> dict[str, Measure]:
    """With at most one ad of an advertiser, against no limit."""
    mask = market.eligible(1.0, seed=0)

    def of(limit: int | None) -> Callable[[UserSide], None]:
        return lambda user: _certified(
            retrieve(market.searchable, mask, user, COUNT, per_advertiser=limit)
        )

    taken = [(_each(market, of(1)), _each(market, of(None))) for _ in range(rounds)]
    return {
        "mean_one_per_advertiser": measure(
            [float(own.mean()) for own, _ in taken],
            "ms",
            "processor time of a decision's retrieval with at most one ad of an advertiser;"
            " baseline: without a limit",
            baseline=[float(free.mean()) for _, free in taken],
        )
    }


def _certified(answer: Retrieved) -> None:
    if not answer.certified:
        raise BenchmarkBroken("an answer was not certified")


def _check(market: IndexedMarket, mask: Bytes, count: int) -> None:
    """Both find the same ads for each user; this warms both up, too."""
    for user in market.users:
        found = retrieve(market.searchable, mask, user, count).rows
        expected = flat_scan(market.searchable, mask, user, count)
        if not np.array_equal(found, expected):
            raise BenchmarkBroken(f"retrieval found {found.tolist()}, not {expected.tolist()}")


def _each(market: IndexedMarket, function: Callable[[UserSide], None]) -> np.ndarray:
    """Milliseconds of this thread's processor time for each user."""
    taken = []
    for user in market.users:
        started = time.thread_time()
        function(user)
        taken.append(1000 * (time.thread_time() - started))
    return np.array(taken)


def _mean(values: list[int]) -> float:
    return math.fsum(values) / len(values)
