"""How retrieval reaches every ad: the index's own rows, and what changed since it was built."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.serving.ad_features import features_of
from app.serving.columns import Columns
from app.serving.eligibility import UNKNOWN
from app.serving.newness import new_rows
from app.serving.retrieval import Searchable
from models.features import Encoder
from models.index import AdIndex, packed
from models.offset import Model
from models.publish import promise
from models.types import Bools, Bytes, Float32s, Int64s


@dataclass(frozen=True, slots=True)
class Parts:
    """What a catalog of one snapshot is made with."""

    index: AdIndex
    model: Model
    encoder: Encoder

    def composed(self, columns: Columns, rows: Int64s) -> Float32s:
        """The vectors of some rows by the model: float32 [m, D+2], as the index would hold them."""
        features = len(self.encoder.schema.ad)
        latent, main = self.model.ad_vectors(features_of(columns.encoded, rows, features))
        return np.column_stack((latent, main, _log_bids(columns, rows)))

    def new(self, columns: Columns, rows: Int64s, before: Bytes | None = None) -> Bytes:
        """The packed rows of ads that are new to the model: some rows anew, others as before."""
        bits = np.zeros(len(columns), np.bool_)
        if before is not None:
            known = np.unpackbits(before, bitorder="little")[: len(columns)]
            bits[: len(known)] = known
        bits[rows] = new_rows(columns, rows, self.model, self.encoder.schema)
        return packed(bits)


def searchable_of(columns: Columns, parts: Parts) -> Searchable:
    """How retrieval reaches every row, from nothing."""
    rows = np.arange(len(columns))
    stale = _stale(columns, rows, parts.index)
    composed_at = np.where(stale, np.cumsum(stale) - 1, -1)
    composed = parts.composed(columns, np.nonzero(stale)[0])
    always = columns.per_click & (stale | _raised(columns, rows, parts.index))
    return Searchable(
        parts.index,
        composed_at,
        composed,
        np.nonzero(always)[0],
        _bounded(columns, always, parts.index),
        _by_bid(columns),
        columns.ad_ids,
        columns.bid_micros,
        columns.per_click,
        promise(parts.encoder.schema),
        columns.advertiser_ids,
    )


def changed(
    known: Searchable, before: Columns, columns: Columns, rows: Int64s, parts: Parts
) -> Searchable:
    """How retrieval reaches every row after a change of some rows (int64 [m])."""
    made = replace(
        known,
        ad_ids=columns.ad_ids,
        bid_micros=columns.bid_micros,
        per_click=columns.per_click,
        advertisers=columns.advertiser_ids,
    )
    if not len(rows) or _same(before, columns):
        return made
    made = _recomposed(made, before, columns, rows, parts)
    always = np.zeros(len(columns), np.bool_)
    always[known.always] = True
    beyond = (made.composed_at[rows] >= 0) | _raised(columns, rows, parts.index)
    always[rows] = columns.per_click[rows] & beyond
    return replace(
        made,
        always=np.nonzero(always)[0],
        bounded=_bounded(columns, always, parts.index),
        by_bid=_by_bid(columns) if _by_bid_moved(before, columns, rows) else known.by_bid,
    )


def places_of(ascending: Int64s, ids: Int64s) -> Int64s:
    """The position of each id, −1 where it is absent."""
    if not len(ascending):
        return np.full(len(ids), -1, np.int64)
    at = np.minimum(ascending.searchsorted(ids), len(ascending) - 1)
    return np.where(ascending[at] == ids, at, -1)


def _same(before: Columns, columns: Columns) -> bool:
    """Whether nothing changed that retrieval depends on."""
    names = ("ad_ids", "bid_micros", "per_click", "features_version", "encoded")
    return all(getattr(before, name) is getattr(columns, name) for name in names)


def _recomposed(
    made: Searchable, before: Columns, columns: Columns, rows: Int64s, parts: Parts
) -> Searchable:
    """With vectors composed for rows that the index has no true vector for."""
    composed_at = np.full(len(columns), -1, np.int64)
    composed_at[: len(before)] = made.composed_at
    stale = _stale(columns, rows, parts.index)
    composed_at[rows[~stale]] = -1
    fresh = [row for row in rows[stale].tolist() if _vector_changed(before, columns, row, made)]
    if not fresh:
        return replace(made, composed_at=composed_at)
    composed_at[fresh] = len(made.composed) + np.arange(len(fresh))
    vectors = parts.composed(columns, np.array(fresh, np.int64))
    composed = np.concatenate((made.composed, vectors))
    return _compacted(replace(made, composed_at=composed_at, composed=composed))


def _vector_changed(before: Columns, columns: Columns, row: int, made: Searchable) -> bool:
    known = row < len(before) and made.composed_at[row] >= 0
    return not known or before.encoded[row] != columns.encoded[row]


def _compacted(made: Searchable) -> Searchable:
    """Without the vectors that no row points to any more, once they are the larger part."""
    used = np.nonzero(made.composed_at >= 0)[0]
    if len(made.composed) <= 2 * len(used) + 64:
        return made
    composed = made.composed[made.composed_at[used]]
    composed_at = np.full(len(made.composed_at), -1, np.int64)
    composed_at[used] = np.arange(len(used))
    return replace(made, composed_at=composed_at, composed=composed)


def _stale(columns: Columns, rows: Int64s, index: AdIndex) -> Bools:
    """Which rows the index has no true vector for: bool [m]."""
    inside = rows < len(index)
    stale = ~inside
    known = rows[inside]
    in_catalog = columns.state[known] != UNKNOWN
    stale[inside] = in_catalog & (columns.features_version[known] != index.features_version[known])
    return stale


def _raised(columns: Columns, rows: Int64s, index: AdIndex) -> Bools:
    """Which rows of the index bid more than it has them for: bool [m]."""
    inside = np.nonzero(rows < len(index))[0]
    raised = np.zeros(len(rows), np.bool_)
    known = rows[inside]
    raised[inside] = _log_bids(columns, known) > index.log_bid[known]
    return raised


def _log_bids(columns: Columns, rows: Int64s) -> Float32s:
    """The natural logarithm of each live bid, 0 for CPM ads: float32 [m]."""
    bids = np.maximum(columns.bid_micros[rows], 1)
    return np.where(columns.per_click[rows], np.log(bids), 0.0).astype(np.float32)


def _bounded(columns: Columns, always: Bools, index: AdIndex) -> np.ndarray:
    return packed((columns.per_click & ~always)[: len(index)])


def _by_bid(columns: Columns) -> Int64s:
    """CPM rows by falling bid, then by id."""
    rows = np.nonzero(~columns.per_click & (columns.state != UNKNOWN))[0]
    order = np.lexsort((columns.ad_ids[rows], -columns.bid_micros[rows]))
    return rows[order]


def _by_bid_moved(before: Columns, columns: Columns, rows: Int64s) -> bool:
    """Whether a changed ad is a CPM ad, or was one."""
    old = rows[rows < len(before)]
    return not (columns.per_click[rows].all() and before.per_click[old].all())
