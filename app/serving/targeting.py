"""Targeting of a whole catalog at once: clauses compiled per feature, answered by bitmaps.

Which rows a feature's clauses rule out depends on nothing but the request's value of that feature,
so the answer is kept per (feature, value) and a request combines a few bitmaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain

import numpy as np

from models.features import Feature, canonical
from models.index import packed
from models.types import Bools, Bytes, Clause, FeatureValue, Float64s, Int64s, Targeting

_ALL, _ANY, _NONE = range(3)
_CACHE_BYTES = 16_000_000
_PREFIX = "user."
_RECENT_ROWS = 2000
"""Most rows of the small layer: one more, and the whole catalog is compiled anew."""
_FEW_ROWS = 50
"""The same when rows move to another snapshot's index, which happens off the event loop."""


def value_texts(name: str, value: FeatureValue) -> tuple[str, ...]:
    """The texts that targeting compares: canonical, a numeric value unbucketed; missing is ()."""
    if not isinstance(value, list | tuple):
        text = canonical(_as_text(name), value)
        return (text,) if text else ()
    texts = (canonical(_as_text(name), item) for item in value)
    return tuple(text for text in texts if text)


@lru_cache(maxsize=256)
def _as_text(name: str) -> Feature:
    return Feature("user", name, "categorical")


@dataclass(frozen=True, slots=True)
class _Entries:
    """Which row has which clause in which role: int64 [e] each."""

    rows: Int64s
    clauses: Int64s
    roles: Int64s

    def where(self, kept: Bools) -> _Entries:
        return _Entries(self.rows[kept], self.clauses[kept], self.roles[kept])

    def moved(self, new_rows: Int64s) -> _Entries:
        """With row i now `new_rows[i]`, dropped where that is negative."""
        rows = new_rows[self.rows]
        return _Entries(rows, self.clauses, self.roles).where(rows >= 0)


_NO_ENTRIES = _Entries(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One feature's word on every row, packed: not ruled out; has a clause of `any` that is met."""

    allowed: Bytes
    any_met: Bytes


class Targets:
    """The targeting of n rows, immutable. Safe to share between threads.

    Compiling is linear in the clauses of the whole catalog, so rows changed since go into a second,
    small layer that voids theirs in the first; both layers' cached answers outlive a change.
    """

    def __init__(self, size: int, base: _Layer, recent: _Layer | None, void: Bools) -> None:
        self.size, self._base, self._recent = size, base, recent
        self._void = void  # bool [size]: rows that the base says nothing about
        self._packed_void = packed(void)

    @classmethod
    def of(cls, targetings: Sequence[Targeting]) -> Targets:
        """The targeting of rows 0, 1, 2, …"""
        known: dict[Clause, int] = {}
        size = len(targetings)
        entries = _listed(np.arange(size), targetings, known)
        return cls(size, _Layer.compiled(size, known, entries), None, np.zeros(size, np.bool_))

    def replaced(self, size: int, rows: Int64s, targetings: Sequence[Targeting]) -> Targets:
        """The same for `size` rows of which some (int64 [m]) have new targeting or are new."""
        void = np.ones(size, np.bool_)
        void[: self.size] = self._void
        void[rows] = True
        known, entries = ({}, _NO_ENTRIES) if self._recent is None else self._recent.content()
        fresh = _listed(rows, targetings, known)
        entries = _joined(entries.where(~np.isin(entries.rows, rows)), fresh)
        if int(void.sum()) > min(_RECENT_ROWS, _FEW_ROWS + size // 16):
            return self._merged(known, entries, void)
        return Targets(size, self._base, _Layer.compiled(size, known, entries), void)

    def reordered(self, size: int, new_rows: Int64s) -> Targets:
        """The same with row i moved to `new_rows[i]`, or dropped where that is negative."""
        kept = new_rows >= 0
        void = np.zeros(size, np.bool_)
        void[new_rows[kept]] = self._void[kept]
        base = self._base.reordered(size, new_rows)
        if self._recent is None:
            return Targets(size, base, None, void)
        recent = self._recent.reordered(size, new_rows)
        moved = Targets(size, base, recent, void)
        return moved if void.sum() <= _FEW_ROWS else moved._merged(*recent.content(), void)

    def allowed(self, user: Mapping[str, FeatureValue]) -> Bytes | None:
        """The packed rows whose targeting this user meets; None when that is every row.

        `user`: values by name without the `user.` prefix. Raises `FeatureValueInvalid`.
        """
        by_base = self._base.allowed(user)
        if self._recent is None:
            return by_base
        by_recent = self._recent.allowed(user)
        if by_base is None:
            return by_recent
        either = self._packed_void.copy()
        either[: len(by_base)] |= by_base
        return either if by_recent is None else either & by_recent

    def _merged(self, recent: dict[Clause, int], entries: _Entries, void: Bools) -> Targets:
        """The base without its void rows, and these entries, as one layer."""
        known, of_base = self._base.content()
        renumbered = [known.setdefault(clause, len(known)) for clause in recent]
        clauses = np.array(renumbered, np.int64)[entries.clauses]
        kept = of_base.where(~void[of_base.rows])
        joined = _joined(kept, _Entries(entries.rows, clauses, entries.roles))
        size = len(void)
        return Targets(size, _Layer.compiled(size, known, joined), None, np.zeros(size, np.bool_))


class _Layer:
    """Compiled targeting of some of n rows; those without a clause are allowed."""

    def __init__(
        self,
        size: int,
        known: dict[Clause, int],
        entries: _Entries,
        features: dict[str, _FeatureTargets],
    ) -> None:
        self.size, self._known, self._entries, self._features = size, known, entries, features
        self._cache: dict[tuple[str, object], _Verdict] = {}
        self._cached_most = max(64, _CACHE_BYTES // max(1, size // 4))
        has_any = np.zeros(size, np.bool_)
        has_any[entries.rows[entries.roles == _ANY]] = True
        self._free_of_any = packed(~has_any) if has_any.any() else None

    @classmethod
    def compiled(cls, size: int, known: dict[Clause, int], entries: _Entries) -> _Layer:
        """Entries whose clauses are numbered by `known`."""
        used, clauses = np.unique(entries.clauses, return_inverse=True)
        names = tuple(known)
        known = {names[old]: new for new, old in enumerate(used.tolist())}
        entries = _Entries(entries.rows, clauses, entries.roles)
        return cls(size, known, entries, _by_feature(size, tuple(known), entries))

    def content(self) -> tuple[dict[Clause, int], _Entries]:
        """What it was compiled from; the numbering is a copy."""
        return dict(self._known), self._entries

    def reordered(self, size: int, new_rows: Int64s) -> _Layer:
        """The same with rows moved; nothing is compiled anew."""
        features = {
            name: feature.reordered(size, new_rows) for name, feature in self._features.items()
        }
        return _Layer(size, self._known, self._entries.moved(new_rows), features)

    def allowed(self, user: Mapping[str, FeatureValue]) -> Bytes | None:
        """See `Targets.allowed`."""
        if not self._features:
            return None
        verdicts = [self._verdict(name, user.get(name)) for name in self._features]
        result = verdicts[0].allowed.copy()
        for verdict in verdicts[1:]:
            result &= verdict.allowed
        if self._free_of_any is not None:
            result &= _any_of(self._free_of_any, verdicts)
        return result

    def _verdict(self, name: str, value: FeatureValue) -> _Verdict:
        # Kept by the raw value too where that is safe (true equals 1, as a key), since making it
        # canonical takes longer than all the rest.
        is_plain = type(value) is str or type(value) is int
        key = (name, value) if is_plain else (name, value_texts(name, value))
        known = self._cache.get(key)
        if known is None:
            known = self._features[name].verdict(value_texts(name, value))
            if len(self._cache) >= self._cached_most:
                self._cache.clear()
            self._cache[key] = known
        return known


def _any_of(free: Bytes, verdicts: Sequence[_Verdict]) -> Bytes:
    result = free.copy()
    for verdict in verdicts:
        result |= verdict.any_met
    return result


def _listed(rows: Int64s, targetings: Sequence[Targeting], known: dict[Clause, int]) -> _Entries:
    """The entries of some rows; clauses seen for the first time are added to `known`."""
    found = [
        (row, known.setdefault(clause, len(known)), role)
        for row, targeting in zip(rows.tolist(), targetings, strict=True)
        for role, clauses in enumerate((targeting.all, targeting.any, targeting.none))
        for clause in clauses
    ]
    flat = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3)
    return _Entries(flat[:, 0].copy(), flat[:, 1].copy(), flat[:, 2].copy())


def _joined(first: _Entries, second: _Entries) -> _Entries:
    return _Entries(
        np.concatenate((first.rows, second.rows)),
        np.concatenate((first.clauses, second.clauses)),
        np.concatenate((first.roles, second.roles)),
    )


def _by_feature(
    size: int, clauses: Sequence[Clause], entries: _Entries
) -> dict[str, _FeatureTargets]:
    names = [clause.feature.removeprefix(_PREFIX) for clause in clauses]
    order = {name: at for at, name in enumerate(dict.fromkeys(names))}
    feature_of = np.array([order[name] for name in names], np.int64)
    made = {}
    for name, at in order.items():
        mine = entries.where(feature_of[entries.clauses] == at)
        if len(mine.rows):
            used, local = np.unique(mine.clauses, return_inverse=True)
            own = [clauses[clause] for clause in used.tolist()]
            made[name] = _FeatureTargets.compiled(
                size, name, own, _Entries(mine.rows, local, mine.roles)
            )
    return made


@dataclass(frozen=True, slots=True)
class _FeatureTargets:
    """The clauses on one feature, and of each role the rows that have them.

    `listing`: the clauses that list each text; `minimum`, `maximum`: float64 [clauses], NaN for a
    clause that lists values; `roles`: entries of all, any, none, in the numbering of the clauses.
    """

    size: int
    listing: dict[str, list[int]]
    minimum: Float64s
    maximum: Float64s
    roles: tuple[_Entries, ...]

    @classmethod
    def compiled(
        cls, size: int, name: str, clauses: Sequence[Clause], entries: _Entries
    ) -> _FeatureTargets:
        """The entries of one feature, whose clauses are numbered in the order given."""
        return cls(
            size,
            _listing(name, clauses),
            _bounds([clause.minimum for clause in clauses], clauses, -np.inf),
            _bounds([clause.maximum for clause in clauses], clauses, np.inf),
            tuple(entries.where(entries.roles == role) for role in (_ALL, _ANY, _NONE)),
        )

    def reordered(self, size: int, new_rows: Int64s) -> _FeatureTargets:
        """The same with rows moved."""
        return replace(self, size=size, roles=tuple(role.moved(new_rows) for role in self.roles))

    def verdict(self, texts: tuple[str, ...]) -> _Verdict:
        """What these values of the feature mean for each row."""
        met = self._met(texts)
        every, some, none = self.roles
        allowed, any_met = np.ones(self.size, np.bool_), np.zeros(self.size, np.bool_)
        allowed[every.rows[~met[every.clauses]]] = False
        allowed[none.rows[met[none.clauses]]] = False
        any_met[some.rows[met[some.clauses]]] = True
        return _Verdict(packed(allowed), packed(any_met))

    def _met(self, texts: tuple[str, ...]) -> Bools:
        met = np.zeros(len(self.minimum), np.bool_)
        for text in texts:
            met[self.listing.get(text, [])] = True
            number = _number(text)
            if number is not None:
                met |= (self.minimum <= number) & (number <= self.maximum)
        return met


def _listing(name: str, clauses: Sequence[Clause]) -> dict[str, list[int]]:
    """The clauses that list each text."""
    listing: dict[str, list[int]] = {}
    for at, clause in enumerate(clauses):
        for value in clause.values or ():
            for text in value_texts(name, value):
                listing.setdefault(text, []).append(at)
    return listing


def _bounds(given: Sequence[float | None], clauses: Sequence[Clause], open_end: float) -> Float64s:
    # NaN for a clause that lists values: no number is within it.
    return np.array(
        [
            np.nan if clause.values is not None else open_end if bound is None else bound
            for bound, clause in zip(given, clauses, strict=True)
        ],
        np.float64,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
