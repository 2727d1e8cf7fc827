"""The live catalog: every ad as it stands now, laid over the rows of one snapshot's index.

A change makes a new catalog that shares all that did not change; the old one goes on serving the
requests that hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from app.serving.ad_features import features_of
from app.serving.columns import Columns
from app.serving.eligibility import UNKNOWN, Eligibility
from app.serving.overlay import Parts, changed, places_of, searchable_of
from app.serving.retrieval import Searchable
from models.exploration import score_variances
from models.features import Encoder
from models.index import AdIndex
from models.offset import Model
from models.types import (
    Ad,
    Bytes,
    CatalogChanges,
    Float64s,
    Int64s,
    Placement,
)

_SPARSE = 4
"""Ids may be this many times as many as ads for a table of them all to be kept: 8 bytes each."""


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
        parts: Parts,
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
        searchable = changed(self.searchable, before, columns, rows, self._parts)
        placements = {**self.placements, **_by_name(changes.placements)}
        # The table tells which ads there are, and most changes leave that as it was.
        is_kept = (
            columns.ad_ids is self.columns.ad_ids
            and not (self.columns.state[rows] == UNKNOWN).any()
        )
        table = self._table if is_kept else None
        new = self._parts.new(columns, rows, self.new)
        made = LiveCatalog(
            changes.version, columns, searchable, placements, self._parts, table, new
        )
        made.eligibility.warm_as(self.eligibility)
        return made

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
        return score_variances(self._parts.model, features_of(self.columns.encoded, rows, features))

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
        rows = places_of(self._parts.index.ad_ids, ad_ids)
        if not len(self._newer_ids) or (rows >= 0).all():
            return rows
        newer = places_of(self._newer_ids, ad_ids)
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
    parts = Parts(index, model, encoder)
    searchable = searchable_of(columns, parts)
    return LiveCatalog(version, columns, searchable, placements, parts)


def _without_unknown(columns: Columns) -> tuple[int, Int64s, Int64s]:
    """A move that drops the rows of ads that only the former index knew."""
    known = columns.state != UNKNOWN
    new_rows = np.where(known, np.cumsum(known) - 1, -1)
    return int(known.sum()), new_rows, columns.ad_ids[known]


def _aligned(columns: Columns, index: AdIndex) -> Columns:
    """The columns with the index's ads on its own rows and all others behind them."""
    new_rows = places_of(index.ad_ids, columns.ad_ids)
    beyond = new_rows < 0
    new_rows[beyond] = len(index) + np.arange(int(beyond.sum()))
    ad_ids = np.concatenate((index.ad_ids, columns.ad_ids[beyond]))
    return columns.moved(len(ad_ids), new_rows, ad_ids)


def _own_index(columns: Columns, model: Model, encoder: Encoder) -> AdIndex:
    width = len(model.ad_latent[0:1].T) + 2
    empty = AdIndex.build(columns.ad_ids[:0], columns.ad_ids[:0], np.zeros((0, width)))
    vectors = Parts(empty, model, encoder).composed(columns, np.arange(len(columns)))
    return AdIndex.build(columns.ad_ids, columns.features_version, vectors)
