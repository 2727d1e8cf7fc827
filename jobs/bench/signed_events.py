"""Bodies of `POST /v1/events`: impressions and clicks of the market, with signed tokens."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from uuid import UUID

import msgspec
import numpy as np

from app.serving.tokens import TokenContent, Tokens
from jobs.bench.stored_events import packed
from models.types import Batch

CLICKED_EVERY = 10
"""Every so many impressions one has a click."""


def bodies(
    batch: Batch, tokens: Tokens, snapshot_id: UUID, random: np.random.Generator, size: int
) -> list[str]:
    """The impressions of `batch` and their clicks in requests of `size` events.

    Each impression is a decision of its own; its click comes in the same order, right after it.
    """
    events = _events(_sealed(batch, tokens, snapshot_id, random), batch.label)
    found = []
    while part := list(itertools.islice(events, size)):
        found.append(msgspec.json.encode({"events": part}).decode())
    return found


def _sealed(
    batch: Batch, tokens: Tokens, snapshot_id: UUID, random: np.random.Generator
) -> list[str]:
    """A token for each impression."""
    ids = random.bytes(16 * len(batch))
    rows = zip(batch.time_ms.tolist(), batch.ad_id.tolist(), packed(batch), strict=True)
    return [
        tokens.seal(
            TokenContent(
                decision_id=UUID(bytes=ids[16 * row : 16 * row + 16]),
                decided_ms=time_ms,
                ad_id=ad_id,
                slot=0,
                snapshot_id=snapshot_id,
                catalog_version=1,
                price_micros=1000,
                propensity=1.0,
                placement="home",
                explored=False,
                features=features,
            )
        )
        for row, (time_ms, ad_id, features) in enumerate(rows)
    ]


def _events(tokens: Sequence[str], label: object) -> Iterator[dict[str, str]]:
    for token, is_clicked in zip(tokens, np.asarray(label).tolist(), strict=True):
        yield {"type": "impression", "token": token}
        if is_clicked:
            yield {"type": "click", "token": token}
