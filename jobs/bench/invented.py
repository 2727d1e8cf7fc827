"""Invented values, events and catalogs of any size: for memory, not for quality.

Six user features, the last a user id, and three of ads. A value's key is a hash of its number, so
that keys are in no order, as those of a log are.
"""

from __future__ import annotations

import numpy as np

from models.features import Schema, parse_schema
from models.index import AdSet
from models.types import Batch, Int64s, Ragged

USER_COUNTS = (10, 3, 24, 6, 30)
"""Values of geo, device, hour, age and interest; the user id has all the others."""
PER_CAMPAIGN, PER_ADVERTISER = 10, 100
"""Ads of each campaign, and of each advertiser."""
_USER = ("geo", "device", "hour", "age", "interest", "user")
_AD = ("creative", "campaign", "advertiser")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def schema_of(ttl_days: float) -> Schema:
    """K = 6, A = 3, o = s = 4: user vectors of 24 floats, ad vectors of 84."""
    names = [f"user.{name}" for name in _USER] + [f"ad.{name}" for name in _AD]
    tables = [f'[{name}]\nkind = "categorical"' for name in names]
    model = f"[model]\noverlap = 4\nalone = 4\nvalue_ttl_days = {ttl_days}"
    return parse_schema("\n".join(("version = 1", *tables, model)))


def keys_of(feature: int, numbers: Int64s) -> Int64s:
    """The keys of a feature's values: distinct for distinct (feature, number), in no order."""
    mixed = (numbers.astype(np.uint64) + np.uint64(feature << 40)) * _SPREAD
    mixed ^= mixed >> np.uint64(29)
    return np.asarray((mixed * _SPREAD).view(np.int64))


def ad_counts(values: int) -> tuple[int, ...]:
    """How many creatives, campaigns and advertisers there are among about so many ad values."""
    creatives = max(round(values / (1 + 1 / PER_CAMPAIGN + 1 / PER_ADVERTISER)), 1)
    return creatives, -(-creatives // PER_CAMPAIGN), -(-creatives // PER_ADVERTISER)


def user_rows(random: np.random.Generator, users: Int64s) -> Ragged:
    """The encoded features of these users, all but the id at random."""
    columns = [keys_of(k, random.integers(0, n, len(users))) for k, n in enumerate(USER_COUNTS)]
    return _ragged([*columns, keys_of(len(columns), users)])


def ad_rows(creatives: Int64s) -> Ragged:
    """The encoded features of these ads."""
    owners = (creatives, creatives // PER_CAMPAIGN, creatives // PER_ADVERTISER)
    return _ragged([keys_of(len(_USER) + k, numbers) for k, numbers in enumerate(owners)])


def catalog(creatives: Int64s) -> AdSet:
    """The ads of these creatives, numbered alike, all bids alike."""
    n = len(creatives)
    return AdSet(creatives, np.zeros(n, np.int64), np.zeros(n, np.float32), ad_rows(creatives))


def events(random: np.random.Generator, start_ms: int, users: Int64s, creatives: Int64s) -> Batch:
    """One impression of each user and creative, in turn, within an hour; one in twenty clicks."""
    n = len(users)
    times = start_ms + np.sort(random.integers(0, 3_600_000, n))
    label = (random.random(n) < 0.05).astype(np.float32)
    return Batch(times, creatives, label, user_rows(random, users), ad_rows(creatives))


def _ragged(columns: list[Int64s]) -> Ragged:
    ids = np.column_stack(columns).ravel()
    return Ragged(ids, np.arange(len(ids) + 1), len(columns))
