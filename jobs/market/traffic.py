"""Logged impressions of a market: encoded for training at once, or row by row for replay."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jobs.market.market import Market
from jobs.market.people import (
    AGES,
    DAY_CURVE,
    DEVICES,
    GEOS,
    HOURS,
    INTERESTS,
    PLACEMENTS,
    Codes,
    Visitors,
)
from models.features import Encoder, Feature, Schema, canonical, stack, value_hash
from models.types import Batch, Bools, FeatureValue, Float32s, Float64s, Int64s, Ragged

Exposure = Literal["popularity", "random"]
LOG_COLUMNS = (
    *("time", "ad_id", "clicked", "bid_micros"),
    *("user.geo", "user.device", "user.hour", "user.age", "user.interest", "user.placement"),
    *("ad.creative", "ad.campaign", "ad.advertiser", "ad.category", "ad.format"),
)


@dataclass(frozen=True, slots=True)
class Impressions:
    """n impressions in time order.

    `time_ms`: int64 [n]; `visitors`: n rows; `rows`: int64 [n], the shown ads' rows;
    `probability`: float64 [n], the true one; `label`: float32 [n], clicked or not.
    """

    time_ms: Int64s
    visitors: Visitors
    rows: Int64s
    probability: Float64s
    label: Float32s


def draw_impressions(
    market: Market, n: int, seed: int, exposure: Exposure = "popularity"
) -> Impressions:
    """n impressions spread over the market's run by the day curve."""
    random = np.random.default_rng((market.seed, seed))
    times = _times(market, random, n)
    visitors = market.visitors(random, n, market.hour_of(times))
    rows = market.shown(random, visitors, times, uniform=exposure == "random")
    probability = market.true_pctr(visitors, rows + 1, times)
    label = (random.random(n) < probability).astype(np.float32)
    return Impressions(times, visitors, rows, probability, label)


def _times(market: Market, random: np.random.Generator, n: int) -> Int64s:
    """Sorted ms: each hour of the run by its share of the day's curve."""
    hours = int(np.ceil(market.shape.days * HOURS))
    weights = np.resize(DAY_CURVE, hours)
    hour_ms = market.shape.day_ms / HOURS
    drawn = np.searchsorted(np.cumsum(weights), random.random(n) * weights.sum(), side="right")
    times = ((drawn + random.random(n)) * hour_ms).astype(np.int64)
    return market.shape.start_ms + np.sort(np.minimum(times, market.end_ms - market.shape.start_ms))


def batch(
    market: Market, n: int, schema: Schema, seed: int = 0, exposure: Exposure = "popularity"
) -> Batch:
    """n impressions encoded under `schema`: a feature that the market lacks is missing in all."""
    return encode(market, draw_impressions(market, n, seed, exposure), schema)


def encode(market: Market, impressions: Impressions, schema: Schema) -> Batch:
    """Encode impressions, column by column: the same hashes as `Encoder` gives row by row."""
    user = _interleaved([_user_column(f, impressions.visitors) for f in schema.user])
    ad = _ad_side(market, impressions.rows, schema)
    return Batch(impressions.time_ms, impressions.rows + 1, impressions.label, user, ad)


def log(
    market: Market, n: int, seed: int = 0, exposure: Exposure = "popularity"
) -> Iterator[dict[str, FeatureValue]]:
    """n logged impressions, each a row of a replay log with `LOG_COLUMNS`; lists joined by "|"."""
    drawn = draw_impressions(market, n, seed, exposure)
    for i in range(n):
        ad = market.ads.ad(int(drawn.rows[i]))
        user = drawn.visitors.features(i)
        values: dict[str, FeatureValue] = {
            "time": int(drawn.time_ms[i]),
            "ad_id": ad.id,
            "clicked": int(drawn.label[i]),
            "bid_micros": ad.bid_micros,
            "ad.creative": ad.id,
            "ad.campaign": ad.campaign_id,
            "ad.advertiser": ad.advertiser_id,
        }
        values.update({f"user.{name}": _joined(value) for name, value in user.items()})
        values.update({f"ad.{name}": _joined(value) for name, value in ad.features.items()})
        yield values


def write_log(path: Path, rows: Iterator[dict[str, FeatureValue]]) -> None:
    """Write a log as CSV, compressed where the name ends in `.gz`; a missing value is empty."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _joined(value: FeatureValue) -> FeatureValue:
    return "|".join(map(str, value)) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Column:
    """One feature of n rows: hashes of row i at `hashes[starts[i] : starts[i] + counts[i]]`."""

    hashes: Int64s
    counts: Int64s


def _user_column(feature: Feature, visitors: Visitors) -> _Column:
    single: dict[str, tuple[Sequence[FeatureValue], Codes]] = {
        "geo": (GEOS, visitors.geo),
        "device": (DEVICES, visitors.device),
        "hour": (range(HOURS), visitors.hour),
        "age": (AGES, visitors.age),
        "placement": (PLACEMENTS, visitors.placement),
    }
    if feature.name == "interest":
        return _multi(feature, visitors.interests)
    vocabulary, codes = single.get(feature.name, ((None,), np.zeros(len(visitors), np.int8)))
    hashes = np.array([_hash(feature, value) for value in vocabulary], np.int64)
    return _Column(hashes[codes], np.ones(len(codes), np.int64))


def _hash(feature: Feature, value: object) -> int:
    return value_hash(feature, canonical(feature, value))


def _multi(feature: Feature, interests: Bools) -> _Column:
    """Each row's hashes ascending, as the encoder gives them; the missing value for none."""
    hashes = np.array([_hash(feature, value) for value in INTERESTS], np.int64)
    order = np.argsort(hashes)
    missing = ~interests.any(axis=1)
    columns = np.column_stack((interests[:, order], missing))
    flat = np.append(hashes[order], _hash(feature, None))[np.nonzero(columns)[1]]
    return _Column(flat, columns.sum(axis=1, dtype=np.int64))


def _interleaved(columns: list[_Column]) -> Ragged:
    """Columns side by side, row after row."""
    counts = np.column_stack([column.counts for column in columns])
    ptr = _pointers(counts)
    ids = np.empty(ptr[-1], np.int64)
    for position, column in enumerate(columns):
        starts = ptr[position :: len(columns)][: len(counts)]
        ids[_spans(starts, column.counts)] = column.hashes
    return Ragged(ids, ptr, len(columns))


def _gathered(source: Ragged, rows: Int64s) -> Ragged:
    """The rows of `source`, in that order and as often as they are asked for."""
    features = source.features
    counts = np.diff(source.ptr).reshape(-1, features)
    starts, lengths = source.ptr[:-1:features][rows], counts.sum(axis=1)[rows]
    return Ragged(source.ids[_spans(starts, lengths)], _pointers(counts[rows]), features)


def _spans(starts: Int64s, lengths: Int64s) -> Int64s:
    """The concatenation of all ranges starts[i] … starts[i] + lengths[i] − 1."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def _pointers(counts: Int64s) -> Int64s:
    ptr = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=ptr[1:])
    return ptr


def _ad_side(market: Market, rows: Int64s, schema: Schema) -> Ragged:
    """The ads `rows`, each different one encoded once by the product's encoder."""
    encoder = Encoder(schema)
    known = {feature.name for feature in schema.ad}
    shown, positions = np.unique(rows, return_inverse=True)
    encoded = []
    for row in shown.tolist():
        values = encoder.ad_values(market.ads.ad(row))
        encoded.append(encoder.encode_ad({k: v for k, v in values.items() if k in known}))
    return _gathered(stack(encoded, len(schema.ad)), positions)
