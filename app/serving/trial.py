"""One slot for a new ad: in few decisions, by a rule that knows how uncertain a score is.

See `models.exploration`. A decision is a trial by a number drawn from its id. Then the last slot
goes to a new ad that may serve there, is not on the page yet and reaches the floor, at the floor's
price; the slots before it and all prices are those of the auction without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import numpy as np

from app.serving.auction import Candidates, Placed, expected_cpm
from app.serving.bitmaps import rows_at, rows_of, size_of, without
from app.serving.columns import Columns
from app.serving.live import LiveCatalog
from app.serving.retrieval import UserSide
from models.exploration import RULE, Unsure, chance, pick
from models.offset import sigmoid
from models.types import Bools, Bytes, Float64s, Int64s

_MOST_CANDIDATES = 256
"""Of more new ads that may serve, so many are drawn by lot."""
_MOST_LISTED = 4096
"""Of more than so many new ads lots are drawn before anybody looks at who may have the slot."""
_FEW_ADS, _FEW_SCORED, _FEW_BYTES = 8, 4, 128
"""So many new ads, in so much of the bitmap, are looked at before all of them (and scored, where
there is a floor): mostly the first one will do; all would cost every page what a trial costs."""
LEAST_PROPENSITY = 1e-6
"""Of the ad that was there before where every page is a trial and no lot could be placed."""


@dataclass(slots=True)
class Trials:
    """How often one worker has tried each ad under the present snapshot."""

    _snapshot_id: UUID | None = None
    _counts: dict[int, int] = field(default_factory=dict)

    def under(self, snapshot_id: UUID) -> Mapping[int, int]:
        """Counts by ad id; they start again with every snapshot, which has learned from them."""
        if snapshot_id != self._snapshot_id:
            self._snapshot_id, self._counts = snapshot_id, {}
        return self._counts

    def add(self, ad_id: int) -> None:
        """Count one trial of an ad."""
        self._counts[ad_id] = self._counts.get(ad_id, 0) + 1


@dataclass(frozen=True, slots=True)
class Exploration:
    """The budget: `share` of all slots; `most` trials of an ad until the next snapshot.

    `tried`: the trials so far, by ad id.
    """

    share: float
    most: int
    tried: Mapping[int, int]

    def chance(self, slots: int) -> float:
        """The probability that a page of so many slots is a trial."""
        return min(1.0, self.share * slots)


@dataclass(frozen=True, slots=True)
class Tried:
    """The ad of a trial: its row, its pCTR, what it won, and the probability that it was picked."""

    row: int
    pctr: float
    won: Placed
    probability: float


def is_trial(exploration: Exploration, decision_id: UUID, slots: int) -> bool:
    """Whether this decision's last slot is for a new ad."""
    return chance(decision_id.bytes) < exploration.chance(slots)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial in the last slot of one full page depends on.

    `new`: packed bitmap of the new ads that may serve; `shown`: the rows of all slots, the best
    first, which are not tried; `per_advertiser`: the limit, which holds for a new ad as for others.
    """

    live: LiveCatalog
    user: UserSide
    new: Bytes
    floor_micros: int
    shown: Sequence[int]
    per_advertiser: int
    exploration: Exploration

    def tried(self, decision_id: UUID) -> Tried | None:
        """The new ad for the last slot, None where there is no such ad."""
        able = self._able(decision_id)
        if len(able.rows) == 0:
            return None
        unsure = Unsure(
            able.candidates.ad_ids,
            np.log(able.candidates.bid_micros),
            able.scores,
            np.sqrt(self.live.score_variances(able.rows)),
        )
        at, probability = pick(RULE, decision_id.bytes, unsure)
        ecpm = float(able.candidates.ecpm()[at])
        won = able.candidates.placed(at, ecpm, float(self.floor_micros))
        pctr = float(able.candidates.pctr[at])
        return Tried(int(able.rows[at]), pctr, won, probability * able.share)

    def is_possible(self, decision_id: UUID) -> bool:
        """Whether a trial of this decision would place an ad, whether or not it is one."""
        if self._is_one_near():
            return True
        if self.floor_micros > 0:
            return len(self._able(decision_id).rows) > 0
        # Where lots decide, one of those drawn from among so many will do.
        return size_of(self.new) > _MOST_LISTED or len(self._drawn(decision_id)[0]) > 0

    def _is_one_near(self) -> bool:
        """Whether one of the first few new ads that compete could be tried."""
        owners = self._owners_above().tolist()
        able = (row for row in self._first_rows() if self._may_be(row, owners))
        if self.floor_micros <= 0:
            return next(able, None) is not None
        few = np.array(list(islice(able, _FEW_SCORED)), np.int64)
        return len(few) > 0 and bool((self._ecpm(few) >= self.floor_micros).any())

    def _first_rows(self) -> Iterator[int]:
        """Up to so many new ads near the first one, without unpacking the bitmap."""
        first = int((self.new != 0).argmax())
        bits = int.from_bytes(self.new[first : first + _FEW_BYTES].tobytes(), "little")
        for _ in range(min(bits.bit_count(), _FEW_ADS + len(self.shown))):
            lowest = bits & -bits
            yield 8 * first + lowest.bit_length() - 1
            bits ^= lowest

    def _ecpm(self, rows: Int64s) -> Float64s:
        columns, pctr = self.live.columns, sigmoid(self.live.searchable.scores(rows, self.user))
        return expected_cpm(pctr, columns.bid_micros.take(rows), columns.per_click.take(rows))

    def _able(self, decision_id: UUID) -> _Able:
        """Those drawn that reach the floor."""
        columns = self.live.columns
        rows, share = self._drawn(decision_id)
        scores = self.live.searchable.scores(rows, self.user)
        candidates = _of_rows(columns, rows, sigmoid(scores))
        able = np.flatnonzero(candidates.ecpm() >= self.floor_micros)
        chosen = _of_rows(columns, rows[able], candidates.pctr[able])
        return _Able(rows[able], scores[able], chosen, share)

    def _drawn(self, decision_id: UUID) -> tuple[Int64s, float]:
        """The rows of new ads that take part, int64 [m], and how probable it was that each would.

        Among very many the lots come first: whose advertiser has its share of the page already is
        then looked up for those drawn alone, and they drop out.
        """
        new = self.new.copy()
        without(new, self.shown)
        count = size_of(new)
        if count > _MOST_LISTED:
            rows = rows_at(new, _lots(count, decision_id))
            return rows[self._may(rows)], _MOST_CANDIDATES / count
        rows = rows_of(new)
        rows = rows[self._may(rows)]
        if len(rows) <= _MOST_CANDIDATES:
            return rows, 1.0
        return rows[_lots(len(rows), decision_id)], _MOST_CANDIDATES / len(rows)

    def _may(self, rows: Int64s) -> Bools:
        """Which of some rows neither their advertiser's share of the page nor the budget bars."""
        columns = self.live.columns
        owners, counts = np.unique(self._owners_above(), return_counts=True)
        barred = owners[counts >= self.per_advertiser]
        free = ~np.isin(columns.advertiser_ids[rows], barred)
        most = self.exploration.most
        spent = [ad_id for ad_id, tries in self.exploration.tried.items() if tries >= most]
        if spent:
            free &= ~np.isin(columns.ad_ids[rows], spent)
        return free

    def _may_be(self, row: int, owners: list[int]) -> bool:
        """The same of one row of a new ad, and whether it is not on the page."""
        if row in self.shown:
            return False
        columns, exploration = self.live.columns, self.exploration
        if exploration.tried.get(int(columns.ad_ids[row]), 0) >= exploration.most:
            return False
        return owners.count(int(columns.advertiser_ids[row])) < self.per_advertiser

    def _owners_above(self) -> Int64s:
        """Whose ads stand above the last slot."""
        return self.live.columns.advertiser_ids.take(np.array(self.shown[:-1], np.int64))


@dataclass(frozen=True, slots=True)
class _Able:
    """m new ads that could have the slot: int64 [m] `rows`; float64 [m] `scores`; `share`: how
    probable it was that each was drawn."""

    rows: Int64s
    scores: Float64s
    candidates: Candidates
    share: float


def _lots(count: int, decision_id: UUID) -> Int64s:
    """So many places of `count`, drawn evenly, ascending: int64 [256]."""
    random = np.random.default_rng(decision_id.int)
    return np.sort(random.choice(count, _MOST_CANDIDATES, replace=False, shuffle=False))


def _of_rows(columns: Columns, rows: Int64s, pctr: Float64s) -> Candidates:
    return Candidates(
        columns.ad_ids[rows],
        columns.advertiser_ids[rows],
        columns.bid_micros[rows],
        columns.per_click[rows],
        pctr,
    )
