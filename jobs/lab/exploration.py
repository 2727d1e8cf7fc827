"""`adscent lab exploration`: what trying new ads brings, and what it costs, on seeded markets.

Each policy serves the same market from the same start: a model that knows the ads that were there
before. Ads are born all the time. Policies differ in one slot of some pages alone, and learn from
what they have shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from app.serving.auction import Candidates, auction, ranked, within_limit
from jobs.lab.exploration_report import Policy, Run, Sizes, report_of, show
from jobs.market import Market, Visitors
from jobs.market.traffic import Impressions, encode
from jobs.output import check_writable
from models.constraints import project
from models.exploration import Unsure, chance, is_new, pick, score_variances
from models.features import Schema, load_schema
from models.offset import Model, State, genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Bools, Float64s, Int64s, Ragged

FEATURES: Final = Path(__file__).resolve().parents[2] / "features.toml"
_CANDIDATES = 48
"""Ads of a page that the auction is given; more would hardly ever change winner or price."""


POLICIES: Final = (
    Policy(None),
    Policy("uniform", 0.02),
    Policy("upper", 0.02),
    Policy("thompson", 0.02),
    Policy("thompson", 0.01),
    Policy("thompson", 0.05),
)


def run(seeds: int, report: Path | None, sizes: Sizes | None = None) -> int:
    """Run every policy on a market a seed; print a table, write the report. Returns 0.

    Raises `ReportUnwritable` before anything is run.
    """
    check_writable("--report", report)
    chosen, console = sizes or Sizes(), Console()
    schema = load_schema(FEATURES)
    found = [simulated(seed, POLICIES, chosen, schema, console) for seed in range(1, seeds + 1)]
    made = report_of(found, POLICIES, chosen)
    show(made, console)
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    return 0


def simulated(
    seed: int, policies: Sequence[Policy], sizes: Sizes, schema: Schema, console: Console
) -> list[Run]:
    """The policies in one market, side by side: show, click, learn, publish, step by step."""
    market = Market(seed, sizes.ads, days=sizes.days)
    servers = [_Server(market, policy, sizes, schema) for policy in policies]
    for step in track(range(sizes.steps), f"market {seed}", console=console):
        scene = _scene(market, step, sizes)
        for server in servers:
            server.serve(scene, np.random.default_rng((seed, step, 1)))
    return [server.run() for server in servers]


@dataclass(frozen=True, slots=True)
class _Scene:
    """One step's requests: `eligible` bool [requests, ads]; `truth` float64 [requests, ads], true
    eCPM; `fair` int64, the rows that an auction would show which knew it."""

    now_ms: int
    visitors: Visitors
    eligible: Bools
    truth: Float64s
    fair: Int64s


def _scene(market: Market, step: int, sizes: Sizes) -> _Scene:
    now_ms = market.shape.start_ms + int(step * sizes.days * market.shape.day_ms / sizes.steps)
    random = np.random.default_rng((market.seed, step))
    visitors = market.visitors(random, sizes.requests, int(market.hour_of(now_ms)))
    eligible, truth = _eligible(market, visitors, now_ms), _true_ecpm(market, visitors, now_ms)
    advertisers = market.ads.advertiser[market.ads.campaign].tolist()
    fair = []
    for row in range(sizes.requests):
        ids = np.flatnonzero(eligible[row])
        order = ids[ranked(truth[row, ids], ids)[:_CANDIDATES]].tolist()
        fair += within_limit(order, advertisers, 1)[: sizes.slots]
    return _Scene(now_ms, visitors, eligible, truth, np.array(fair))


class _Server:
    """A market's server under one policy."""

    def __init__(self, market: Market, policy: Policy, sizes: Sizes, schema: Schema) -> None:
        self._market, self._policy, self._sizes, self._schema = market, policy, sizes, schema
        self._settings = TrainerSettings.of(schema)
        self._ads = _every_ad(market, schema)
        self._own = [feature.name for feature in schema.ad].index("creative")
        self._advertisers = market.ads.advertiser[market.ads.campaign]
        self._log_bids = np.log(market.ads.bid_micros)
        self._explored = 0
        self._steps: list[tuple[Int64s, Int64s, float, float]] = []
        self._learn(
            genesis(schema, schema.model.base_rate, schema.model.seed),
            _first_log(market, sizes.learned),
        )

    def run(self) -> Run:
        """What was served so far."""
        shown, fair, value, charged = zip(*self._steps, strict=True)
        sums = np.array(value), np.array(charged)
        return Run(np.array(shown), np.array(fair), *sums, self._explored)

    def serve(self, scene: _Scene, random: np.random.Generator) -> None:
        """Serve and learn one step."""
        market, scores = self._market, self._scores(scene)
        placed = [
            (request, row, price)
            for request in range(self._sizes.requests)
            for row, price in self._page(random.bytes(16), scene.eligible[request], scores[request])
        ]
        requests, rows, prices = (np.array(column) for column in zip(*placed, strict=True))
        seen = scene.visitors.take(requests)
        rate = market.true_pctr(seen, rows + 1, scene.now_ms)
        label = (random.random(len(rows)) < rate).astype(np.float32)
        times = np.full(len(rows), scene.now_ms)
        paid = prices * np.where(market.ads.is_cpc[rows], rate, 0.001)
        shown, fair = (np.bincount(each, minlength=market.size) for each in (rows, scene.fair))
        value = float(scene.truth[requests, rows].sum() / 1000)
        self._steps.append((shown, fair, value, float(paid.sum())))
        self._learn(self._state, Impressions(times, seen, rows, rate, label))

    def _page(
        self, decision: bytes, eligible: Bools, scores: Float64s
    ) -> Iterator[tuple[int, int]]:
        """The rows and prices of one page."""
        ads, sizes = self._market.ads, self._sizes
        rows = np.flatnonzero(eligible)
        pctr = sigmoid(scores[rows])
        per_click, bids = ads.is_cpc[rows], ads.bid_micros[rows]
        candidates = Candidates(rows + 1, self._advertisers[rows], bids, per_click, pctr)
        top = ranked(candidates.ecpm(), candidates.ad_ids)[:_CANDIDATES]
        owners = candidates.advertiser_ids[top]
        some = Candidates(rows[top] + 1, owners, bids[top], per_click[top], pctr[top])
        placed = auction(some, slots=sizes.slots, floor_micros=0, per_advertiser=1)
        page = [(int(rows[top[won.candidate]]), won.price_micros) for won in placed]
        explored = self._tried(decision, rows, scores, [row for row, _ in page[:-1]])
        if explored is not None and page and explored != page[-1][0]:
            self._explored += 1
            page[-1] = (explored, 1)
        yield from page

    def _tried(
        self, decision: bytes, rows: Int64s, scores: Float64s, above: list[int]
    ) -> int | None:
        """The ad that is tried in the last slot of this page, if this is a page that tries one."""
        policy = self._policy
        if policy.rule is None or chance(decision) >= policy.share * self._sizes.slots:
            return None
        free = self._new[rows] & ~np.isin(self._advertisers[rows], self._advertisers[above])
        new = rows[free]
        if not len(new):
            return None
        unsure = Unsure(new + 1, self._log_bids[new], scores[new], self._deviations[new])
        return int(new[pick(policy.rule, decision, unsure)[0]])

    def _scores(self, scene: _Scene) -> Float64s:
        """float64 [requests, ads]: the model's scores."""
        users = encode(self._market, _unseen(scene.visitors, scene.now_ms), self._schema).user
        latent, main = self._model.user_vectors(users)
        found: Float64s = (latent @ self._ad_latent.T).astype(np.float64)
        found += self._model.bias + main[:, None] + self._ad_main
        return found

    def _learn(self, state: State, impressions: Impressions) -> None:
        """Train, publish, and look which ads are still new."""
        chunk = encode(self._market, impressions, self._schema)
        self._state = train(state, chunk, self._schema, self._settings).state
        self._model: Model = project(self._state, self._settings.radii, self._schema)[0]
        self._ad_latent, self._ad_main = self._model.ad_vectors(self._ads)
        own = self._ads.ids[self._ads.ptr[self._own :: self._ads.features][: len(self._ads)]]
        self._new = is_new(self._model, own, self._own) & self._market.ads.is_cpc
        self._deviations = np.sqrt(score_variances(self._model, self._ads))


def _unseen(visitors: Visitors, now_ms: int) -> Impressions:
    """Visitors for their features alone, as if each had seen the first ad."""
    n = len(visitors)
    nothing, no_click = np.zeros(n), np.zeros(n, np.float32)
    return Impressions(np.full(n, now_ms), visitors, np.zeros(n, np.int64), nothing, no_click)


def _every_ad(market: Market, schema: Schema) -> Ragged:
    anybody = market.visitors(np.random.default_rng(0), market.size)
    each = replace(_unseen(anybody, market.shape.start_ms), rows=np.arange(market.size))
    return encode(market, each, schema).ad


def _first_log(market: Market, n: int) -> Impressions:
    """Impressions of the ads that are live at the start, as they were shown before any model."""
    random = np.random.default_rng((market.seed, 1_000_003))
    visitors = market.visitors(random, n)
    times = np.full(n, market.shape.start_ms)
    rows = market.shown(random, visitors, times, uniform=False)
    rate = market.true_pctr(visitors, rows + 1, times)
    return Impressions(times, visitors, rows, rate, (random.random(n) < rate).astype(np.float32))


def _eligible(market: Market, visitors: Visitors, now_ms: int) -> Bools:
    """bool [requests, ads]."""
    campaigns, live = np.arange(len(market.ads.advertiser)), market.live(now_ms)
    targeted = [market.ads.audience.includes(campaigns, bits) for bits in visitors.bits]
    found: Bools = np.array(targeted)[:, market.ads.campaign] & live
    return found


def _true_ecpm(market: Market, visitors: Visitors, now_ms: int) -> Float64s:
    """float64 [requests, ads], micros."""
    ids = np.arange(1, market.size + 1)
    each = (visitors.take(np.array([at])) for at in range(len(visitors)))
    return np.array([market.true_ecpm_micros(visitor, ids, now_ms) for visitor in each])
