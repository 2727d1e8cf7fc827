"""The live catalog: every ad as it stands now, laid over the rows of one snapshot's index.

A change makes a new catalog that shares all that did not change; the old one goes on serving the
requests that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.serving.columns import Columns
from app.serving.eligibility import UNKNOWN, Eligibility
from app.serving.newness import new_rows
from app.serving.retrieval import Searchable
from models.exploration import score_variances
from models.features import Encoder, stack
from models.index import AdIndex, packed
from models.offset import Model
from models.publish import promise
from models.types import (
    Ad,
    Bools,
    Bytes,
    CatalogChanges,
    Float32s,
    Float64s,
    Int64s,
    Placement,
)

_SPARSE = 4
"""Ids may be this many times as many as ads for a table of them all to be kept: 8 bytes each."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a catalog of one snapshot is made with."""

    index: AdIndex
    model: Model
    encoder: Encoder

    def composed(self, columns: Columns, rows: Int64s) -> Float32s:
        """The vectors of some rows by the model: float32 [m, D+2], as the index would hold them."""
        features = len(self.encoder.schema.ad)
        encoded = [columns.features(row, features) for row in rows.tolist()]
        latent, main = self.model.ad_vectors(stack(encoded, features))
        return np.column_stack((latent, main, _log_bids(columns, rows)))

    def new(self, columns: Columns, rows: Int64s, before: Bytes | None = None) -> Bytes:
        """The packed rows of ads that are new to the model: some rows anew, others as before."""
        bits = np.zeros(len(columns), np.bool_)
        if before is not None:
            known = np.unpackbits(before, bitorder="little")[: len(columns)]
            bits[: len(known)] = known
        bits[rows] = new_rows(columns, rows, self.model, self.encoder.schema)
        return packed(bits)


class LiveCatalog:
    """Every ad of one catalog version over one snapshot; immutable, safe to share between threads.

    Rows 0 … n−1 are the index's own, later rows are ads that it does not hold. `columns`: the ads;
    `eligibility`: who may serve; `searchable`: how retrieval reaches them; `new`: packed bitmap of
    the ads that the model hardly knows; `placements`: by name; `version`: the catalog version that
    holds.
    """

    __slots__ = (
        "_newer_ids",
        "_newer_rows",
        "_parts",
        "_table",
        "columns",
        "eligibility",
        "new",
        "placements",
        "searchable",
        "version",
    )

    def __init__(
        self,
        version: int,
        columns: Columns,
        searchable: Searchable,
        placements: Mapping[str, Placement],
        parts: _Parts,
        table: Int64s | None = None,
        new: Bytes | None = None,
    ) -> None:
        self.version, self.columns, self.searchable, self._parts = (
            version,
            columns,
            searchable,
            parts,
        )
        self.placements = placements
        self.new = parts.new(columns, np.arange(len(columns))) if new is None else new
        self.eligibility: Eligibility = columns.eligibility()
        newer = columns.ad_ids[len(parts.index) :]
        order = np.argsort(newer)
        self._newer_ids, self._newer_rows = newer[order], order + len(parts.index)
        self._table = _table(columns) if table is None else table

    @classmethod
    def load(
        cls, changes: CatalogChanges, index: AdIndex | None, model: Model, encoder: Encoder
    ) -> LiveCatalog:
        """A whole catalog over a snapshot. Without an index one is built in memory."""
        columns = Columns.empty().with_states(changes.campaigns, changes.advertisers)
        ads = {ad.id: ad for ad in changes.ads}
        columns = columns.with_ads(list(ads.values()), np.arange(len(ads)), encoder)
        return cls.over(changes.version, columns, changes.placements, index, model, encoder)

    @classmethod
    def over(
        cls,
        version: int,
        columns: Columns,
        placements: Iterable[Placement],
        index: AdIndex | None,
        model: Model,
        encoder: Encoder,
    ) -> LiveCatalog:
        """The same from columns, which are shared where their rows are the index's already."""
        return _attached(version, columns, _by_name(placements), index, model, encoder)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def overlay(self) -> Int64s:
        """Rows that every request scores: new ads, changed features, raised bids. int64 [m]."""
        return self.searchable.always

    def apply(self, changes: CatalogChanges) -> LiveCatalog:
        """The catalog after changes; itself if it is already at their version or past it.

        Costs a few ms at 300,000 ads, as much as the changed columns have to be copied.
        """
        if changes.version <= self.version:
            return self
        ads = list({ad.id: ad for ad in changes.ads}.values())
        rows = self._rows_for(ads)
        before = self.columns.with_states(changes.campaigns, changes.advertisers)
        columns = before.with_ads(ads, rows, self._parts.encoder)
        searchable = _changed(self.searchable, before, columns, rows, self._parts)
        placements = {**self.placements, **_by_name(changes.placements)}
        # The table tells which ads there are, and most changes leave that as it was.
        is_kept = (
            columns.ad_ids is self.columns.ad_ids
            and not (self.columns.state[rows] == UNKNOWN).any()
        )
        table = self._table if is_kept else None
        new = self._parts.new(columns, rows, self.new)
        return LiveCatalog(
            changes.version, columns, searchable, placements, self._parts, table, new
        )

    def attach(self, index: AdIndex | None, model: Model) -> LiveCatalog:
        """The same catalog version over another snapshot of the same schema.

        Every row may move. Takes about 0.1 s at 300,000 ads: not for the event loop.
        """
        return _attached(
            self.version, self.columns, self.placements, index, model, self._parts.encoder
        )

    def score_variances(self, rows: Int64s) -> Float64s:
        """How uncertain the model is of the scores of some rows: float64 [m]."""
        features = len(self._parts.encoder.schema.ad)
        encoded = [self.columns.features(row, features) for row in rows.tolist()]
        return score_variances(self._parts.model, stack(encoded, features))

    def rows_of(self, ad_ids: Sequence[int]) -> Int64s:
        """The row of each ad, −1 where the catalog does not have it: int64 [m]."""
        ids = np.array(ad_ids, np.int64)
        if self._table is not None:
            return self._table.take(ids, mode="clip")
        rows = self._places(ids)
        if len(self):
            rows[self.columns.state[rows] == UNKNOWN] = -1  # rows of −1 stay what they are
        return rows

    def row_of(self, ad_id: int) -> int | None:
        """The row of one ad, None if the catalog does not have it."""
        row = int(self.rows_of([ad_id])[0])
        return None if row < 0 else row

    def _places(self, ad_ids: Int64s) -> Int64s:
        """The row of each id, indexed ads that the catalog lacks included, else −1."""
        rows = _found(self._parts.index.ad_ids, ad_ids)
        if not len(self._newer_ids) or (rows >= 0).all():
            return rows
        newer = _found(self._newer_ids, ad_ids)
        return np.where(newer >= 0, self._newer_rows[newer], rows)

    def _rows_for(self, ads: Sequence[Ad]) -> Int64s:
        """The row of each ad; an ad that is new gets a row after the last."""
        rows = self._places(np.array([ad.id for ad in ads], np.int64))
        new = rows < 0
        rows[new] = len(self) + np.arange(int(new.sum()))
        return rows


def _table(columns: Columns) -> Int64s | None:
    """The row of every id up to one beyond the largest, −1 where there is none: one look-up.

    None where ids are so sparse that it would be large: they are looked up by bisection.
    """
    places = int(columns.ad_ids.max(initial=0)) + 2
    if places > _SPARSE * (len(columns) + 1024):
        return None
    table = np.full(places, -1, np.int64)
    known = columns.state != UNKNOWN
    table[columns.ad_ids[known]] = np.flatnonzero(known)
    return table


def _found(ascending: Int64s, ids: Int64s) -> Int64s:
    """The position of each id, −1 where it is absent."""
    if not len(ascending):
        return np.full(len(ids), -1, np.int64)
    at = np.minimum(ascending.searchsorted(ids), len(ascending) - 1)
    return np.where(ascending[at] == ids, at, -1)


def _by_name(placements: Iterable[Placement]) -> dict[str, Placement]:
    return {placement.name: placement for placement in placements}


def _attached(
    version: int,
    columns: Columns,
    placements: Mapping[str, Placement],
    index: AdIndex | None,
    model: Model,
    encoder: Encoder,
) -> LiveCatalog:
    columns = columns.moved(*_without_unknown(columns))
    if index is None:
        columns = columns.moved(
            len(columns), np.argsort(np.argsort(columns.ad_ids)), np.sort(columns.ad_ids)
        )
        index = _own_index(columns, model, encoder)
    columns = _aligned(columns, index)
    parts = _Parts(index, model, encoder)
    searchable = _searchable(columns, parts)
    return LiveCatalog(version, columns, searchable, placements, parts)


def _without_unknown(columns: Columns) -> tuple[int, Int64s, Int64s]:
    """A move that drops the rows of ads that only the former index knew."""
    known = columns.state != UNKNOWN
    new_rows = np.where(known, np.cumsum(known) - 1, -1)
    return int(known.sum()), new_rows, columns.ad_ids[known]


def _aligned(columns: Columns, index: AdIndex) -> Columns:
    """The columns with the index's ads on its own rows and all others behind them."""
    new_rows = _found(index.ad_ids, columns.ad_ids)
    beyond = new_rows < 0
    new_rows[beyond] = len(index) + np.arange(int(beyond.sum()))
    ad_ids = np.concatenate((index.ad_ids, columns.ad_ids[beyond]))
    return columns.moved(len(ad_ids), new_rows, ad_ids)


def _own_index(columns: Columns, model: Model, encoder: Encoder) -> AdIndex:
    width = len(model.ad_latent[0:1].T) + 2
    empty = AdIndex.build(columns.ad_ids[:0], columns.ad_ids[:0], np.zeros((0, width)))
    vectors = _Parts(empty, model, encoder).composed(columns, np.arange(len(columns)))
    return AdIndex.build(columns.ad_ids, columns.features_version, vectors)


def _searchable(columns: Columns, parts: _Parts) -> Searchable:
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


def _changed(
    known: Searchable, before: Columns, columns: Columns, rows: Int64s, parts: _Parts
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


def _same(before: Columns, columns: Columns) -> bool:
    """Whether nothing changed that retrieval depends on."""
    names = ("ad_ids", "bid_micros", "per_click", "features_version", "encoded")
    return all(getattr(before, name) is getattr(columns, name) for name in names)


def _recomposed(
    made: Searchable, before: Columns, columns: Columns, rows: Int64s, parts: _Parts
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
