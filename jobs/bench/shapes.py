"""Events of the seeded market for kernels of several shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jobs.market import Market
from jobs.market.traffic import batch
from models.features import Schema, parse_schema
from models.types import Batch, Int64s, Ragged

_USER = ("geo", "device", "hour", "age", "interest", "placement")
_AD = ("creative", "campaign", "advertiser")
_SALT = 0x5BD1E995
"""What makes a repeated feature's hashes others than those of the first."""

Widths = tuple[int, int, int]
"""K user features, o = overlap, s = alone."""


def schema_of(widths: Widths) -> Schema:
    """K user and three ad features; beyond the market's six, user features repeat."""
    features, overlap, alone = widths
    repeated = (f"{_USER[n % 4]}{n}" for n in range(features - len(_USER)))
    names = [f"user.{name}" for name in (*_USER[:features], *repeated)]
    names += [f"ad.{name}" for name in _AD]
    tables = [
        f'[{name}]\nkind = "{"multi" if name == "user.interest" else "categorical"}"'
        for name in names
    ]
    model = f"[model]\noverlap = {overlap}\nalone = {alone}"
    return parse_schema("\n".join(("version = 1", *tables, model)))


def draw(market: Market, events: int, widths: Widths) -> Batch:
    """Impressions with their labels, encoded for `schema_of(widths)`."""
    known = min(widths[0], len(_USER))
    found = batch(market, events, schema_of((known, *widths[1:])))
    return replace(found, user=_repeated(found.user, widths[0] - known))


def _repeated(block: Ragged, more: int) -> Ragged:
    """The block with its first features once more, as values of other features: geo, device, …

    Those are single-valued; after four of them it starts again.
    """
    if not more:
        return block
    events = (len(block.ptr) - 1) // block.features
    first = block.ptr[:-1].reshape(events, block.features)[:, [n % 4 for n in range(more)]]
    added = block.ids[first] ^ (np.arange(1, more + 1) * _SALT)
    counts = np.diff(block.ptr).reshape(events, block.features)
    wide = np.concatenate((counts, np.ones((events, more), np.int64)), axis=1)
    ptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(wide)))
    return Ragged(_joined(block, added, ptr), ptr, block.features + more)


def _joined(block: Ragged, added: Int64s, ptr: Int64s) -> Int64s:
    events, more = added.shape
    ids = np.empty(ptr[-1], np.int64)
    event = np.repeat(np.arange(events), np.diff(block.ptr[:: block.features]))
    ids[np.arange(len(block.ids)) + more * event] = block.ids
    last = ptr[block.features + more :: block.features + more]
    ids[last[:, None] + np.arange(-more, 0)] = added
    return ids
