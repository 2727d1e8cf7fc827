"""A replay's events in groups: by the age of the ad and by the bid."""

from __future__ import annotations

from typing import get_args

import numpy as np

from jobs.replay.predictions import Scored
from jobs.replay.quality import has_enough, measured, paired
from jobs.replay.report import Age, AgeGroup, BidGroup
from models.types import Float64s, Int64s

FIRST_IMPRESSIONS = 100
DAY_MS = 86_400_000
DECILES = 10

AGES: tuple[Age, ...] = get_args(Age)


def ages(time_ms: Int64s, ad_id: Int64s) -> Int64s:
    """Which of `AGES` each ad was of at each of its impressions: int64 [n].

    `time_ms`, `ad_id`: int64 [n], in time order. An ad's age counts from its first impression in
    the log, since the log knows of nothing earlier.
    """
    by_ad = np.argsort(ad_id, kind="stable")
    ids = ad_id[by_ad]
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
    first = np.repeat(starts, np.diff(starts, append=len(ids)))
    earlier = np.arange(len(ids)) - first
    since_ms = time_ms[by_ad] - time_ms[by_ad[first]]
    found = np.empty(len(ids), np.int64)
    found[by_ad] = np.where(earlier < FIRST_IMPRESSIONS, 0, np.where(since_ms < DAY_MS, 1, 2))
    return found


def by_age(scored: Scored, seed: int) -> tuple[AgeGroup, ...]:
    """The quality at each age that occurs."""
    age = ages(scored.time_ms, scored.ad_id)
    return tuple(
        _age_group(name, scored, age == i, seed) for i, name in enumerate(AGES) if (age == i).any()
    )


def _age_group(name: Age, scored: Scored, member: Int64s, seed: int) -> AgeGroup:
    label = scored.label[member]
    model, plain = scored.model[member], scored.main_effects[member]
    difference, interval = paired(model, plain, label)
    return AgeGroup(
        age=name,
        model=measured(model, label, seed),
        main_effects=measured(plain, label, seed),
        log_loss_minus_main_effects=difference,
        log_loss_minus_main_effects_interval=interval if has_enough(label) else None,
    )


def deciles(bids: Float64s) -> Int64s:
    """The tenth that each bid falls in, 0 the lowest, −1 where it is NaN: int64 [n].

    Equal bids are never parted, so with few distinct bids there are fewer, uneven groups.
    """
    known = bids[~np.isnan(bids)]
    if not len(known):
        return np.full(len(bids), -1)
    shares = np.arange(1, DECILES) / DECILES
    edges = np.unique(np.quantile(known, shares, method="inverted_cdf"))
    return np.where(np.isnan(bids), -1, np.searchsorted(edges, bids))


def by_bid(scored: Scored, bids: Float64s, seed: int) -> tuple[BidGroup, ...]:
    """The quality in each tenth of the bids; `bids`: float64 [n], NaN where there is none."""
    tenth = deciles(bids)
    return tuple(
        BidGroup(
            low_micros=int(bids[tenth == i].min()),
            high_micros=int(bids[tenth == i].max()),
            model=measured(scored.model[tenth == i], scored.label[tenth == i], seed),
        )
        for i in np.unique(tenth[tenth >= 0])
    )
