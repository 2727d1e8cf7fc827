"""`adscent bench certificate`: what certifying the range of scores costs, and how tight it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from jobs.bench.extremes import extremes
from jobs.bench.machine import describe
from jobs.bench.report import FORMAT, Measure, Report, Setting, measure, show, write
from jobs.catalog_ads import ad_set
from jobs.market import Market
from jobs.market.traffic import batch
from models.certificate import ScoreRange, score_range
from models.features import Schema, parse_schema
from models.index import AdSet
from models.offset import State, genesis
from models.publish import Published, publish
from models.trainer import TrainerSettings, train
from models.types import Batch

FEATURES = Path(__file__).resolve().parents[2] / "features.toml"
_USER_ID = '[user.user]\nkind = "categorical"\n'


@dataclass(frozen=True, slots=True)
class Sizes:
    """Catalogs by their numbers of ads; the last run has `users` user ids and the fewest ads."""

    ads: tuple[int, ...]
    events: int
    users: int
    rounds: int


FULL = Sizes(ads=(3_000, 30_000, 300_000), events=300_000, users=100_000, rounds=5)
QUICK = Sizes(ads=(3_000, 30_000), events=100_000, users=100_000, rounds=3)


def run(report: Path | None, seed: int, quick: bool = False, sizes: Sizes | None = None) -> int:
    """Measure, print the table, write the JSON report. Returns 0."""
    console = Console()
    chosen = sizes or (QUICK if quick else FULL)
    machine = describe()
    found: dict[str, Measure] = {}
    for ads in chosen.ads:
        with console.status(f"{ads:,} ads"):
            found |= _measures(_scene(seed, ads, chosen.events), f"{ads}", chosen.rounds)
    with console.status(f"{chosen.users:,} users"):
        scene = _scene(seed, chosen.ads[0], chosen.events, chosen.users)
        found |= _measures(scene, f"{chosen.users}_users", chosen.rounds)
    settings: dict[str, Setting] = {"seed": seed, "quick": quick, "events": chosen.events}
    made = Report("bench certificate", FORMAT, machine, settings, found)
    show(made, console)
    if report is not None:
        write(made, report)
    return 0


@dataclass(frozen=True, slots=True)
class _Scene:
    """A trained state, the catalog, and what they are published by."""

    state: State
    ads: AdSet
    schema: Schema

    def publish(self) -> Published:
        return publish(self.state, self.ads, self.schema, TrainerSettings.of(self.schema).radii)


def _scene(seed: int, ads: int, events: int, users: int = 0) -> _Scene:
    """A model that has learned a market's events, with user ids if `users` is above 0."""
    text = FEATURES.read_text(encoding="utf-8")
    schema = parse_schema(
        text.replace("[ad.creative]", f"{_USER_ID}[ad.creative]") if users else text
    )
    market = Market(seed, ads)
    drawn = batch(market, events, schema, seed)
    if users:
        drawn = _with_ids(drawn, users, seed)
    start = genesis(schema, schema.model.base_rate, schema.model.seed)
    state = train(start, drawn, schema, TrainerSettings.of(schema)).state
    return _Scene(state, ad_set(market.catalog()[2], schema), schema)


def _with_ids(drawn: Batch, users: int, seed: int) -> Batch:
    """The events with a user id in their last user feature, which the market leaves empty."""
    random, side = np.random.default_rng(seed), drawn.user
    keys = random.integers(-(2**63), 2**63 - 1, users)
    ids = side.ids.copy()
    last = side.ptr[side.features - 1 : -1 : side.features]
    ids[last] = random.choice(keys, len(drawn))
    return replace(drawn, user=replace(side, ids=ids))


def _measures(scene: _Scene, name: str, rounds: int) -> dict[str, Measure]:
    published = scene.publish()
    vectors = published.index.vectors
    latent, main = vectors[:, :-2], vectors[:, -2]

    def certify() -> ScoreRange:
        return score_range(published.model, latent, main)

    certified, whole = _milliseconds(certify, scene.publish, rounds)
    reach = certify()
    found = extremes(published.model, latent, main, np.random.default_rng(0))
    values = f"{len(published.model.user_keys):,} user values, {len(vectors):,} ads"
    return {
        f"range_{name}": measure(
            certified,
            "ms",
            f"`score_range`, {values}; baseline: `publish` as a whole, in turn",
            baseline=whole,
        ),
        f"width_{name}": measure(
            [reach.high - reach.low],
            "logits",
            f"certified range of scores, {values}; baseline: between the extremes that a search"
            " over users and ads finds",
            baseline=[found.high - found.low],
        ),
    }


def _milliseconds(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Of both functions, in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, taken in zip((first, second), found, strict=True):
            started = time.perf_counter()
            function()
            taken.append(1000 * (time.perf_counter() - started))
    return found
