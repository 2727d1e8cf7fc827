"""Ways to bound that were tried, side by side: what each costs to find the rows that may win.

Each is given what the last of the best ads has, which a search only comes to know, so these are the
least that each way can cost; what is scored after it is counted, not timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.serving.retrieval import Tangent, flat_slack, retrieve, tangent_at
from jobs.bench.indexed_market import IndexedMarket
from jobs.bench.report import Measure, measure
from models.types import Float32s, Float64s, Int64s

_COUNT = 11
_TOGETHER = 32
_Way = Callable[["_Case"], int]


@dataclass(frozen=True, slots=True)
class _Case:
    """One user's question: the tangent, and what a row's product must reach."""

    tangent: Tangent
    limit: float
    query: Float32s

    @property
    def length(self) -> float:
        """‖q‖."""
        return float(np.linalg.norm(self.tangent.latent))


def trials(market: IndexedMarket, rounds: int) -> dict[str, Measure]:
    """Every way and the flat scan in turn, over the same users, every ad eligible."""
    cases = _cases(market)
    groups = _Groups.of(market)
    ways: dict[str, tuple[str, _Way]] = {
        "order": (
            "length bound in order, then whole vectors of the places before its end",
            lambda case: _in_order(market, case),
        ),
        "order_axes": (
            "length bound in order, then 17 axes: what retrieval does",
            lambda case: _in_order_along_axes(market, case),
        ),
        "axes": ("17 axes of every ad", lambda case: _along_axes(market, case)),
        "campaigns": (
            f"one bound for each of {len(groups.largest):,} campaigns, then the vectors of its ads",
            lambda case: groups.search(market, case),
        ),
    }
    found: dict[str, Measure] = {}
    for name, (said, way) in ways.items():
        found |= _tried(market, cases, f"trial_{name}", said, way, rounds)
    return found | _together(market, cases, rounds)


def _cases(market: IndexedMarket) -> list[_Case]:
    everyone = market.eligible(2.0, 0)
    found = []
    for user in market.users:
        best = retrieve(market.searchable, everyone, user, _COUNT)
        p = best.pctr[-1]
        tangent = tangent_at(user, float(np.log(p) - np.log1p(-p)))
        paid = market.searchable.bid_micros[best.rows[-1]]
        value = p * paid if market.searchable.per_click[best.rows[-1]] else paid / 1000.0
        query = np.append(tangent.latent, (tangent.slope, 1.0)).astype(np.float32)
        found.append(_Case(tangent, float(np.log(value)) - tangent.constant, query))
    return found


def _flat(market: IndexedMarket, case: _Case) -> int:
    index = market.searchable.index
    limit = case.limit - flat_slack(case.tangent, index.reach)
    return len(index.above(case.query, limit, market.searchable.bounded))


def _in_order(market: IndexedMarket, case: _Case) -> int:
    index = market.searchable.index
    end = index.bounds.asked(case.tangent.latent, case.tangent.slope).places_above(case.limit)
    products = index.take(index.bounds.order[:end]) @ case.query
    return int(np.count_nonzero(products >= case.limit - 1e-3))


def _in_order_along_axes(market: IndexedMarket, case: _Case) -> int:
    asked = market.searchable.index.bounds.asked(case.tangent.latent, case.tangent.slope)
    bounds = asked.at(0, asked.places_above(case.limit))
    return int(np.count_nonzero(bounds >= case.limit - asked.shift))


def _along_axes(market: IndexedMarket, case: _Case) -> int:
    bounds = market.searchable.index.bounds
    asked = bounds.asked(case.tangent.latent, case.tangent.slope)
    return int(np.count_nonzero(asked.at(0, len(bounds)) >= case.limit - asked.shift))


@dataclass(frozen=True, slots=True)
class _Groups:
    """A bound for each campaign: its mean vector and, of its ads, the largest log bid and distance.

    `rows`: the ads, campaign by campaign; `starts` and `sizes`: of each campaign; `largest`:
    float32 [groups, D+3], `[mean ν, mean w, max (log bid + |w − mean w|), max ‖ν − mean ν‖]`.
    """

    rows: Int64s
    starts: Int64s
    sizes: Int64s
    largest: Float32s

    @classmethod
    def of(cls, market: IndexedMarket) -> _Groups:
        """The campaigns' bounds."""
        rows = np.argsort(market.campaigns, kind="stable")
        _, starts, sizes = np.unique(market.campaigns[rows], return_index=True, return_counts=True)
        vectors = market.searchable.index.take(rows).astype(np.float64)
        centres: Float64s = np.add.reduceat(vectors[:, :-1], starts, axis=0) / sizes[:, None]
        apart = vectors[:, :-1] - np.repeat(centres, sizes, axis=0)
        level = np.maximum.reduceat(vectors[:, -1] + np.abs(apart[:, -1]), starts)
        reach = np.maximum.reduceat(np.linalg.norm(apart[:, :-1], axis=1), starts)
        largest = np.column_stack((centres, level, reach)).astype(np.float32)
        return cls(rows, starts, sizes, largest)

    def search(self, market: IndexedMarket, case: _Case) -> int:
        """Expand each campaign that may win."""
        query = np.append(case.query, np.float32(case.length))
        able = np.flatnonzero(self.largest @ query >= case.limit - 1e-3)
        sizes = self.sizes[able]
        offsets = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = self.rows[np.repeat(self.starts[able], sizes) + offsets]
        products = market.searchable.index.take(rows) @ case.query
        return int(np.count_nonzero(products >= case.limit - 1e-3))


def _tried(
    market: IndexedMarket, cases: list[_Case], name: str, said: str, way: _Way, rounds: int
) -> dict[str, Measure]:
    taken = [
        (_timed(cases, way), _timed(cases, lambda case: _flat(market, case))) for _ in range(rounds)
    ]
    return {
        f"{name}": measure(
            [own for own, _ in taken],
            "ms",
            f"processor time to find the rows that may win among {len(market):,} ads: {said};"
            " baseline: one flat scan by FAISS",
            baseline=[flat for _, flat in taken],
        ),
        f"{name}_left": measure(
            [max(float(np.mean([way(case) for case in cases])), 1.0)],
            "ads",
            f"rows that may win, to be scored exactly: {said}; baseline: after one flat scan",
            baseline=[float(np.mean([_flat(market, case) for case in cases]))],
        ),
    }


def _together(market: IndexedMarket, cases: list[_Case], rounds: int) -> dict[str, Measure]:
    """One product of all ads with many users at once."""
    whole = np.ascontiguousarray(market.searchable.index.vectors)
    some = cases[:_TOGETHER]
    queries = np.column_stack([case.query for case in some])

    def product(_: _Case) -> int:
        return int((whole @ queries).shape[0])

    taken = [
        (_timed(some[:1], product) / len(some), _timed(some, lambda case: _flat(market, case)))
        for _ in range(rounds)
    ]
    return {
        "trial_together": measure(
            [own for own, _ in taken],
            "ms",
            f"a user's share of one matrix product of {len(market):,} ads with {len(some)} users;"
            " baseline: one flat scan by FAISS",
            baseline=[flat for _, flat in taken],
        )
    }


def _timed(cases: list[_Case], way: _Way) -> float:
    """Mean milliseconds of this thread's processor time."""
    started = time.thread_time()
    for case in cases:
        way(case)
    return 1000 * (time.thread_time() - started) / len(cases)
