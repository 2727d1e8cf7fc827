"""Who a campaign wants to reach: drawn clauses, and their meaning as bits.

Written apart from the server's own eligibility on purpose: the demo checks one by the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from jobs.market.people import (
    AGE_BIT,
    AGES,
    DEVICE_BIT,
    DEVICES,
    GEO_BIT,
    GEOS,
    HOUR_BIT,
    HOURS,
    INTEREST_BIT,
    INTERESTS,
    PLACEMENT_BIT,
    PLACEMENTS,
    Bits,
)
from models.types import Bools, Clause, Int64s, Targeting

_FIRST: Final[dict[str, tuple[int, Sequence[str | None]]]] = {
    "user.geo": (GEO_BIT, GEOS),
    "user.device": (DEVICE_BIT, DEVICES),
    "user.hour": (HOUR_BIT, tuple(map(str, range(HOURS)))),
    "user.age": (AGE_BIT, AGES),
    "user.interest": (INTEREST_BIT, INTERESTS),
    "user.placement": (PLACEMENT_BIT, PLACEMENTS),
}
_BORDERS = (GEO_BIT, DEVICE_BIT, HOUR_BIT, AGE_BIT, INTEREST_BIT, PLACEMENT_BIT, 63)
_GROUPS: Final = tuple(np.uint64((1 << end) - (1 << start)) for start, end in pairwise(_BORDERS))
_EVERYONE: Final = (1 << 63) - 1

UNTARGETED_SHARE: Final = 0.03


@dataclass(frozen=True, slots=True)
class Audience:
    """The targeting of m campaigns as bits of `Visitors.bits`; each uint64 [m].

    `allowed`: in every feature one of the visitor's bits must be in it (a missing value has a bit
    of its own, set only where the feature is not targeted); `any_of`: at least one, unless it is
    empty; `denied`: none.
    """

    allowed: Bits
    any_of: Bits
    denied: Bits

    def includes(self, campaigns: Int64s, bits: Bits) -> Bools:
        """Whether campaign `campaigns[i]` targets a visitor with `bits[i]` (or with one `bits`)."""
        found: Bools = (self.denied[campaigns] & bits) == 0
        any_of = self.any_of[campaigns]
        found &= ((any_of & bits) != 0) | (any_of == 0)
        allowed = self.allowed[campaigns] & bits
        for group in _GROUPS:
            found &= (allowed & group) != 0
        return found


def audience_of(targetings: Iterable[Targeting]) -> Audience:
    """Compile targeting into bits."""
    rows = [(_allowed(t), _union(t.any), _union(t.none)) for t in targetings]
    table = np.array(rows, np.uint64).reshape(-1, 3)
    return Audience(*(np.ascontiguousarray(column) for column in table.T))


def _allowed(targeting: Targeting) -> int:
    allowed = _EVERYONE
    for clause in targeting.all:
        group = next(int(g) for g in _GROUPS if int(g) & clause_bits(clause))
        allowed &= clause_bits(clause) | ~group
    return allowed


def _union(clauses: Iterable[Clause]) -> int:
    bits = 0
    for clause in clauses:
        bits |= clause_bits(clause)
    return bits


def clause_bits(clause: Clause) -> int:
    """The bits of the values that meet a clause."""
    first, vocabulary = _FIRST[clause.feature]
    if clause.values is not None:
        return sum(1 << (first + vocabulary.index(value)) for value in clause.values)
    low = 0 if clause.minimum is None else clause.minimum
    high = HOURS if clause.maximum is None else clause.maximum
    return sum(1 << (first + hour) for hour in range(HOURS) if low <= hour <= high)


def draw_targeting(random: np.random.Generator, may_reach_all: bool) -> Targeting:
    """One campaign's targeting.

    The chances below make about 115 of 2,000 live ads eligible for a request, as in public logs.
    """
    if random.random() < UNTARGETED_SHARE and may_reach_all:
        return Targeting()
    drawn = (
        _values(random, 0.96, "user.placement", PLACEMENTS, 1, 2),
        _values(random, 0.92, "user.geo", GEOS, 1, 3),
        _values(random, 0.35, "user.interest", INTERESTS, 3, 6),
        _values(random, 0.20, "user.age", AGES[:-1], 2, 4),
        _values(random, 0.15, "user.device", DEVICES, 1, 2),
        _hours(random) if random.random() < 0.12 else None,
    )
    any_of = (
        _values(random, 1.0, "user.interest", INTERESTS, 3, 5),
        _values(random, 1.0, "user.age", AGES[:-1], 2, 3),
    )
    none = _values(random, 0.15, "user.age", ("<18",), 1, 1)
    return Targeting(
        all=tuple(clause for clause in drawn if clause),
        any=tuple(clause for clause in any_of if clause) if random.random() < 0.08 else (),
        none=(none,) if none else (),
    )


def _values(
    random: np.random.Generator,
    chance: float,
    feature: str,
    vocabulary: Sequence[str | None],
    fewest: int,
    most: int,
) -> Clause | None:
    count = int(random.integers(fewest, most + 1))
    chosen = np.sort(random.permutation(len(vocabulary))[:count])
    if random.random() >= chance:
        return None
    return Clause(feature, tuple(str(vocabulary[code]) for code in chosen))


def _hours(random: np.random.Generator) -> Clause:
    start = int(random.integers(0, 13))
    return Clause("user.hour", minimum=start, maximum=min(start + 13, HOURS - 1))
