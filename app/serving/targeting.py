"""Targeting of a whole catalog at once: rules compiled per feature, answered by bitmaps.

A request combines a few bitmaps, one or two for each feature that is targeted (see
`app.serving.rules`), whatever the number of ads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from app.serving.rules import Draft, Met, Rules
from models.features import Feature, canonical
from models.index import packed
from models.types import Bools, Bytes, FeatureValue, Int64s, Targeting

_ALL, _ANY, _NONE = range(3)
_PREFIX = "user."
_RECENT_ROWS = 2000
"""Most rows of the small layer: one more, and the whole catalog is compiled anew."""
_FEW_ROWS = 50
"""In a small catalog: from so many rows and a sixteenth of all, compiling anew costs less."""


class Place(NamedTuple):
    """What a set of rules is about. `turn`: where a row has to meet several clauses of one
    feature, each is in a set of its own."""

    feature: str
    role: int
    turn: int


def value_texts(name: str, value: FeatureValue) -> tuple[str, ...]:
    """The texts that targeting compares: canonical, a numeric value unbucketed; missing is ()."""
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in _texts(name, item))
    return _texts(name, value)


def _texts(name: str, value: FeatureValue) -> tuple[str, ...]:
    # Kept where that is safe (true equals 1, as a key): making a value canonical takes longer
    # than all the rest.
    if type(value) is str or type(value) is int:
        return _kept_texts(name, value)
    return _made_texts(name, value)


@lru_cache(maxsize=16_384)
def _kept_texts(name: str, value: str | int) -> tuple[str, ...]:
    return _made_texts(name, value)


def forget_texts() -> None:
    """Drop the texts of recent values: one of them may be erased."""
    _kept_texts.cache_clear()


def _made_texts(name: str, value: FeatureValue) -> tuple[str, ...]:
    text = canonical(_as_text(name), value)
    return (text,) if text else ()


@lru_cache(maxsize=256)
def _as_text(name: str) -> Feature:
    return Feature("user", name, "categorical")


class Targets:
    """The targeting of n rows, immutable. Safe to share between threads.

    Compiling is linear in the rules of the whole catalog, so rows changed since go into a second,
    small layer, which has rows of its own and speaks for them instead of the first.
    """

    def __init__(self, size: int, base: _Layer, recent: _Recent) -> None:
        self.size, self._base, self._recent = size, base, recent

    @classmethod
    def of(cls, targetings: Sequence[Targeting]) -> Targets:
        """The targeting of rows 0, 1, 2, …"""
        size = len(targetings)
        return cls(size, _Layer.compiled(np.arange(size), targetings, size), _Recent.none(size))

    def replaced(self, size: int, rows: Int64s, targetings: Sequence[Targeting]) -> Targets:
        """The same for `size` rows of which some (int64 [m]) have new targeting or are new.

        Takes milliseconds, but seconds for a large catalog when too many rows have changed.
        """
        added = np.setdiff1d(np.arange(self.size, size), rows)
        if len(added):
            rows = np.concatenate((rows, added))
            targetings = [*targetings, *(Targeting() for _ in range(len(added)))]
        recent = self._recent.replaced(size, rows, targetings)
        made = Targets(size, self._base, recent)
        few = min(_RECENT_ROWS, _FEW_ROWS + size // 16)
        return made._merged() if len(recent.rows) > few else made

    def reordered(self, size: int, new_rows: Int64s) -> Targets:
        """The same with row i moved to `new_rows[i]`, or dropped where that is negative.

        Takes a second at 300,000 ads: not for the event loop.
        """
        merged = self._merged()
        return Targets(size, merged._base.moved(size, new_rows), _Recent.none(size))

    @classmethod
    def of_rules(cls, size: int, rules: Mapping[Place, Rules]) -> Targets:
        """The targeting of `size` rows from what `rules` gave."""
        mets = {place: Met(size, of) for place, of in rules.items()}
        return cls(size, _Layer(size, mets), _Recent.none(size))

    def rules(self) -> Mapping[Place, Rules]:
        """The compiled rules of all rows, which can be written to a file."""
        return {place: met.rules for place, met in self._merged()._base.mets.items()}

    def warm_as(self, other: Targets) -> None:
        """Make ready the answers that the other has been asked for."""
        self._base.warm_as(other._base)

    def allowed(self, user: Mapping[str, FeatureValue]) -> Bytes | None:
        """The packed rows whose targeting this user meets; None when that is every row.

        `user`: values by name without the `user.` prefix. Raises `FeatureValueInvalid`.
        """
        by_base = self._base.allowed(user)
        if not len(self._recent.rows):
            return by_base
        result = self._recent.others.copy()
        if by_base is not None:
            result[: len(by_base)] &= by_base
        self._recent.add_allowed(user, result)
        return result

    def key(self, user: Mapping[str, FeatureValue]) -> tuple[int, ...]:
        """What decides who is allowed: equal for users whom `allowed` gives the same rows.

        Raises `FeatureValueInvalid`.
        """
        found = self._base.key(user)
        if len(self._recent.rows):
            found += self._recent.layer.key(user)
        return tuple(found)

    def _merged(self) -> Targets:
        """The same with all rows in the first layer."""
        rows = self._recent.rows
        if not len(rows):
            return self
        stay = np.arange(self.size)
        stay[rows] = -1
        base = self._base.moved(self.size, stay[: self._base.size])
        layer = base.joined(self._recent.layer.moved(self.size, rows))
        return Targets(self.size, layer, _Recent.none(self.size))


class _Layer:
    """The compiled rules of n rows; those without a rule are allowed."""

    def __init__(self, size: int, mets: Mapping[Place, Met]) -> None:
        self.size, self.mets = size, mets
        holders = [met.rules.holders for place, met in mets.items() if place.role == _ANY]
        has_any = np.zeros(size, np.bool_)
        for rows in holders:
            has_any[rows] = True
        self._free_of_any = packed(~has_any)
        self._by_feature: dict[str, list[tuple[int, Met]]] = {}
        for place, met in mets.items():
            self._by_feature.setdefault(place.feature, []).append((place.role, met))

    @classmethod
    def compiled(cls, rows: Int64s, targetings: Sequence[Targeting], size: int) -> _Layer:
        """The layer of `size` rows of which these (int64 [m]) have these targetings."""
        drafts: dict[Place, Draft] = {}
        for row, targeting in zip(rows.tolist(), targetings, strict=True):
            _draft(drafts, row, targeting)
        return cls(size, {place: Met(size, draft.rules()) for place, draft in drafts.items()})

    def moved(self, size: int, new_rows: Int64s) -> _Layer:
        """The same with row i now `new_rows[i]`, dropped where that is negative."""
        return _Layer(size, {place: met.moved(size, new_rows) for place, met in self.mets.items()})

    def joined(self, other: _Layer) -> _Layer:
        """The rules of both, which are about different rows of as many."""
        mets = dict(self.mets)
        for place, met in other.mets.items():
            mets[place] = mets[place].joined(met) if place in mets else met
        return _Layer(self.size, mets)

    def warm_as(self, other: _Layer) -> None:
        """Make ready the answers that the other has been asked for."""
        for place, met in other.mets.items():
            if place in self.mets:
                met.warm(self.mets[place])

    def key(self, user: Mapping[str, FeatureValue]) -> list[int]:
        """See `Targets.key`. For each feature how many values, then what each is to the rules."""
        found: list[int] = []
        for name, mets in self._by_feature.items():
            texts = value_texts(name, user.get(name))
            found.append(len(texts))
            for text in texts:
                found += [met.number_of(text) for _, met in mets]
        return found

    def allowed(self, user: Mapping[str, FeatureValue]) -> Bytes | None:
        """See `Targets.allowed`."""
        if not self.mets:
            return None
        any_met = self._free_of_any.copy()
        result: Bytes | None = None
        for name, mets in self._by_feature.items():
            texts = value_texts(name, user.get(name))
            for role, met in mets:
                found = met.of(texts)
                if role == _ANY:
                    if found is not None:
                        any_met |= found
                elif role == _ALL:
                    may = met.unheld if found is None else met.unheld | found
                    result = _both(result, may)
                elif found is not None:
                    result = _both(result, ~found)
        return any_met if result is None else _both(result, any_met)


def _both(result: Bytes | None, more: Bytes) -> Bytes:
    """The rows of both, in the first where there is one."""
    if result is None:
        return more.copy()
    result &= more
    return result


def _draft(drafts: dict[Place, Draft], row: int, targeting: Targeting) -> None:
    for role, clauses in enumerate((targeting.all, targeting.any, targeting.none)):
        turns: dict[str, int] = {}
        for clause in clauses:
            name = clause.feature.removeprefix(_PREFIX)
            turn = turns.get(name, 0) if role == _ALL else 0
            turns[name] = turn + 1
            place = Place(name, role, turn)
            draft = drafts.get(place)
            if draft is None:
                draft = drafts[place] = Draft()
            texts = [text for value in clause.values or () for text in _texts(name, value)]
            draft.add(row, clause, texts)


class _Recent:
    """Rows that changed since the first layer was compiled, with a layer of their own rows.

    `rows`: int64 [m], the catalog's row of each of its own; `others`: packed, all rows but these.
    """

    def __init__(self, size: int, rows: Int64s, layer: _Layer) -> None:
        self.rows, self.layer = rows, layer
        others: Bools = np.ones(size, np.bool_)
        others[rows] = False
        self.others = packed(others)
        self._bytes, self._bits = rows >> 3, np.uint8(1) << (rows & 7).astype(np.uint8)

    @classmethod
    def none(cls, size: int) -> _Recent:
        """No row."""
        return cls(size, np.zeros(0, np.int64), _Layer(0, {}))

    def replaced(self, size: int, rows: Int64s, targetings: Sequence[Targeting]) -> _Recent:
        """With these distinct rows of `size` added or renewed."""
        stays = ~np.isin(self.rows, rows)
        kept = int(stays.sum())
        all_rows = np.concatenate((self.rows[stays], rows))
        before = self.layer.moved(len(all_rows), np.where(stays, np.cumsum(stays) - 1, -1))
        fresh = _Layer.compiled(np.arange(kept, len(all_rows)), targetings, len(all_rows))
        return _Recent(size, all_rows, before.joined(fresh))

    def add_allowed(self, user: Mapping[str, FeatureValue], result: Bytes) -> None:
        """Add its rows that the user may see to a bitmap, in place."""
        mask = self.layer.allowed(user)
        if mask is None:
            np.bitwise_or.at(result, self._bytes, self._bits)
            return
        passing = np.unpackbits(mask, count=len(self.rows), bitorder="little").view(np.bool_)
        np.bitwise_or.at(result, self._bytes[passing], self._bits[passing])
