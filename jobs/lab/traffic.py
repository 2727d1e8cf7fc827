"""The traffic of a regime: the seeded market's impressions, distorted, encoded, cut in chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from jobs.lab.causes import Regime
from jobs.market import Market
from jobs.market.traffic import Impressions, draw_impressions, encode
from jobs.market.truth import Spreads
from models.features import Schema, canonical, load_schema, value_hash
from models.index import AdSet
from models.types import Batch, Bools, Float32s, Float64s, Int64s, Ragged

FEATURES: Final = Path(__file__).resolve().parents[2] / "features.toml"
CLICK_RATE: Final = 0.2
"""So a short run holds as many clicks as a long one of the market's usual click rate."""
SPREADS: Final = Spreads(ad=0.86, visitor=0.6634, within=1.2, interaction=1.0)
"""As the market's, but nothing hidden of a visitor, so that no regret is unavoidable, and wider
interactions: with the usual ones latent vectors earn so little in a short run that the best cure
for their divergence would be to have none."""
PROBES: Final = 256
_RETURN_CHUNKS: Final = 2
_HOT_COLUMNS: Final = (("user", "placement"), ("ad", "format"), ("user", "device"))
_HOT_SPREAD: Final = 0.7


@dataclass(frozen=True, slots=True)
class Chunk:
    """Impressions to score, then learn.

    `probability`: float64 [n], the market's own; `returning`: bool [n], whether the ad came back
    from a pause within the last two chunks.
    """

    batch: Batch
    probability: Float64s
    returning: Bools


@dataclass(frozen=True, slots=True)
class Traffic:
    """All that a run sees: chunks, probe impressions, the catalog, and an ad that goes and returns.

    `probe_logits`: float64 [probes], the market's own; `traveller`: the id of the busiest ad on
    both sides of a pause (of all, where none pauses) and `traveller_key` its creative's hash;
    `present`: bool [chunks], whether it was shown in each chunk.
    """

    regime: Regime
    schema: Schema
    chunks: tuple[Chunk, ...]
    probes: Batch
    probe_logits: Float64s
    ads: AdSet
    traveller: int
    traveller_key: int
    present: Bools


def traffic(regime: Regime) -> Traffic:
    """The traffic of a regime, the same for the same regime."""
    schema = load_schema(FEATURES)
    market = Market(regime.seed, regime.ads, CLICK_RATE, days=regime.days, spreads=SPREADS)
    random = np.random.default_rng((regime.seed, 0x7AFF1C))
    shown, back_ms = _present(_drawn(market, regime), market, regime, random)
    shown = _with_bursts(shown, market, regime, random)
    shown, hot = _with_hot_values(shown, regime, random)
    labels = _labels(shown.probability, regime, random)
    batch = encode(market, replace(shown, label=labels), schema)
    batch = _with_hot_ids(batch, hot, schema)
    chunks = _chunks(batch, shown, back_ms, market, regime)
    return _assembled(regime, schema, market, chunks, shown, back_ms)


def _drawn(market: Market, regime: Regime) -> Impressions:
    """More impressions than are needed: some are of ads that pause."""
    needed = regime.chunks * regime.events
    spare = 1.0 if regime.paused == 0 else 2.0
    return draw_impressions(market, int(needed * spare), seed=regime.seed)


def _present(
    shown: Impressions, market: Market, regime: Regime, random: np.random.Generator
) -> tuple[Impressions, Int64s]:
    """The impressions of ads that are neither paused nor out of budget; when each ad comes back.

    The second is int64 [ads], the end of each ad's pause, and before the market's start for an ad
    that does not pause.
    """
    start, end = market.shape.start_ms, market.end_ms
    pauses = random.random(market.size) < regime.paused
    gone = start + (random.uniform(0.15, 0.9 - regime.away, market.size) * (end - start)).astype(
        int
    )
    back = gone + int(regime.away * (end - start))
    away = pauses[shown.rows]
    away &= (gone[shown.rows] <= shown.time_ms) & (shown.time_ms < back[shown.rows])
    kept = np.flatnonzero(~away & _within_budget(shown, market, regime))
    kept = kept[_spread(len(kept), regime.chunks * regime.events)]
    return taken(shown, kept), np.where(pauses, back, start - end)


def _within_budget(shown: Impressions, market: Market, regime: Regime) -> Bools:
    """Of each ad's impressions of a day, the first ones."""
    if regime.budget >= 1.0:
        return np.ones(len(shown.rows), np.bool_)
    day = (shown.time_ms - market.shape.start_ms) // market.shape.day_ms
    group = day * market.size + shown.rows
    order = np.argsort(group, kind="stable")
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    nth = np.empty(len(order), np.int64)
    nth[order] = np.arange(len(order)) - np.repeat(first, counts)
    return np.asarray(nth < max(1.0, regime.budget * counts.max()))


def _spread(n: int, wanted: int) -> Int64s:
    """`wanted` of n positions, evenly; all of them where there are fewer."""
    return np.linspace(0, n - 1, min(n, wanted)).astype(np.int64)


def taken(shown: Impressions, rows: Int64s) -> Impressions:
    """The given impressions, in that order."""
    return Impressions(
        shown.time_ms[rows],
        shown.visitors.take(rows),
        shown.rows[rows],
        shown.probability[rows],
        shown.label[rows],
    )


def _part_of(n: int, parts: int) -> Int64s:
    """int64 [n]: which of so many equal parts each impression is in."""
    return np.arange(n) * parts // n


def _with_bursts(
    shown: Impressions, market: Market, regime: Regime, random: np.random.Generator
) -> Impressions:
    """In each burst period one ad, another each time, takes the place of most of the others."""
    rows, period = shown.rows.copy(), _part_of(len(shown.rows), regime.periods)
    for number in regime.burst_periods:
        inside = np.flatnonzero(period == number)
        ad = random.choice(shown.rows[inside])
        rows[inside[random.random(len(inside)) < regime.burst]] = ad
    probability = market.true_pctr(shown.visitors, rows + 1, shown.time_ms)
    return replace(shown, rows=rows, probability=probability)


@dataclass(frozen=True, slots=True)
class _Hot:
    """A value that takes over a column: where (side, feature), its text, in which impressions."""

    side: str
    feature: str
    value: str
    where: Int64s


def _with_hot_values(
    shown: Impressions, regime: Regime, random: np.random.Generator
) -> tuple[Impressions, list[_Hot]]:
    """Each hot value has a main effect of its own and stays until another takes its column."""
    period, found = _part_of(len(shown.rows), regime.periods), []
    shift = np.zeros(len(shown.rows))
    for i, first in enumerate(regime.hot_periods):
        side, feature = _HOT_COLUMNS[i % len(_HOT_COLUMNS)]
        after = np.flatnonzero(period >= first)
        where = after[random.random(len(after)) < regime.hot]
        shift[where] += random.normal(0.0, _HOT_SPREAD)
        found.append(_Hot(side, feature, f"hot {i}", where))
    logit = np.log(shown.probability) - np.log1p(-shown.probability)
    return replace(shown, probability=1.0 / (1.0 + np.exp(-logit - shift))), found


def _with_hot_ids(batch: Batch, hot: list[_Hot], schema: Schema) -> Batch:
    """The encoded impressions with the hot values in their columns, each of which has one value."""
    ids = {"user": batch.user.ids.copy(), "ad": batch.ad.ids.copy()}
    for one in hot:
        block = getattr(batch, one.side)
        names = [feature.name for feature in getattr(schema, one.side)]
        feature = getattr(schema, one.side)[names.index(one.feature)]
        cells = one.where * block.features + names.index(one.feature)
        ids[one.side][block.ptr[cells]] = value_hash(feature, one.value)
    return replace(
        batch, user=replace(batch.user, ids=ids["user"]), ad=replace(batch.ad, ids=ids["ad"])
    )


def _labels(probability: Float64s, regime: Regime, random: np.random.Generator) -> Float32s:
    labels = random.random(len(probability)) < probability
    period = _part_of(len(probability), regime.periods)
    tossed = np.isin(period, regime.noise_periods) & (random.random(len(period)) < regime.noise)
    labels[tossed] = random.random(int(tossed.sum())) < 0.5
    return labels.astype(np.float32)


def _chunks(
    batch: Batch, shown: Impressions, back_ms: Int64s, market: Market, regime: Regime
) -> tuple[Chunk, ...]:
    since = shown.time_ms - back_ms[shown.rows]
    recent = _RETURN_CHUNKS * (market.end_ms - market.shape.start_ms) / regime.chunks
    returning = (since >= 0) & (since < recent)
    borders = np.searchsorted(_part_of(len(batch), regime.chunks), np.arange(regime.chunks + 1))
    return tuple(
        Chunk(batch.rows(low, high), shown.probability[low:high], returning[low:high])
        for low, high in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)
    )


def _assembled(
    regime: Regime,
    schema: Schema,
    market: Market,
    chunks: tuple[Chunk, ...],
    shown: Impressions,
    back_ms: Int64s,
) -> Traffic:
    probes = draw_impressions(market, PROBES, seed=regime.seed + 1, exposure="random")
    probability = np.log(probes.probability) - np.log1p(-probes.probability)
    traveller = _traveller(shown, back_ms)
    present = np.array([bool((chunk.batch.ad_id == traveller + 1).any()) for chunk in chunks])
    creative = next(feature for feature in schema.ad if feature.name == "creative")
    return Traffic(
        regime=regime,
        schema=schema,
        chunks=chunks,
        probes=encode(market, probes, schema),
        probe_logits=probability,
        ads=_catalog(market, shown, schema),
        traveller=traveller + 1,
        traveller_key=value_hash(creative, canonical(creative, traveller + 1)),
        present=present,
    )


def _traveller(shown: Impressions, back_ms: Int64s) -> int:
    """The row of the ad with most impressions on both sides of its pause; of all without pauses."""
    after = shown.time_ms >= back_ms[shown.rows]
    sides = [np.bincount(shown.rows[side], minlength=len(back_ms)) for side in (after, ~after)]
    both = np.minimum(*sides)
    return int((both if both.any() else sides[0]).argmax())


def _catalog(market: Market, shown: Impressions, schema: Schema) -> AdSet:
    """Every ad that the run shows, with its own features."""
    rows, first = np.unique(shown.rows, return_index=True)
    features = encode(market, taken(shown, first), schema).ad
    none = np.zeros(len(rows), np.int64)
    return AdSet(rows + 1, none, np.zeros(len(rows), np.float32), _plain(features))


def _plain(block: Ragged) -> Ragged:
    return Ragged(np.ascontiguousarray(block.ids), block.ptr, block.features)
