"""One slot for a new ad: in few decisions, by a rule that knows how uncertain a score is.

See `models.exploration`. A decision is a trial by a number drawn from its id. Then the last slot
goes to a new ad that may serve there and reaches the floor, at the floor's price; the slots before
it and all prices are those of the auction without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from app.serving.auction import Candidates, Placed
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


def tried(
    live: LiveCatalog,
    user: UserSide,
    competing: Bytes,
    above: Int64s,
    exploration: Exploration,
    decision_id: UUID,
    *,
    floor_micros: int,
    per_advertiser: int,
) -> Tried | None:
    """The new ad for the slot below those of the rows `above`, None where there is no such ad.

    The advertisers' limit holds for it as for any other ad.
    """
    drawn, share = _drawn(live, competing, above, exploration, per_advertiser, decision_id)
    if len(drawn) == 0:
        return None
    scores = live.searchable.scores(drawn, user)
    candidates = _of_rows(live.columns, drawn, sigmoid(scores))
    ecpm = candidates.ecpm()
    able = np.flatnonzero(ecpm >= floor_micros)
    if len(able) == 0:
        return None
    unsure = Unsure(
        candidates.ad_ids[able],
        np.log(candidates.bid_micros[able]),
        scores[able],
        np.sqrt(live.score_variances(drawn[able])),
    )
    best, probability = pick(RULE, decision_id.bytes, unsure)
    at = int(able[best])
    won = candidates.placed(at, float(ecpm[at]), float(floor_micros))
    return Tried(int(drawn[at]), float(candidates.pctr[at]), won, probability * share)


def _drawn(
    live: LiveCatalog,
    competing: Bytes,
    above: Int64s,
    exploration: Exploration,
    per_advertiser: int,
    decision_id: UUID,
) -> tuple[Int64s, float]:
    """The rows of new ads that take part, int64 [m], and how probable it was that each would.

    Among very many the lots come first: whose advertiser has its share of the page already is then
    looked up for those drawn alone, and they drop out.
    """
    new = competing & live.new
    without(new, above.tolist())
    count = size_of(new)
    if count > _MOST_LISTED:
        rows, share = rows_at(new, _lots(count, decision_id)), _MOST_CANDIDATES / count
        return rows[_may(live.columns, rows, above, exploration, per_advertiser)], share
    rows = rows_of(new)
    rows = rows[_may(live.columns, rows, above, exploration, per_advertiser)]
    if len(rows) <= _MOST_CANDIDATES:
        return rows, 1.0
    return rows[_lots(len(rows), decision_id)], _MOST_CANDIDATES / len(rows)


def _may(
    columns: Columns, rows: Int64s, above: Int64s, exploration: Exploration, per_advertiser: int
) -> Bools:
    """Which of some rows neither their advertiser's share of the page nor the budget bars."""
    owners, counts = np.unique(columns.advertiser_ids[above], return_counts=True)
    free = ~np.isin(columns.advertiser_ids[rows], owners[counts >= per_advertiser])
    spent = [ad_id for ad_id, tries in exploration.tried.items() if tries >= exploration.most]
    if spent:
        free &= ~np.isin(columns.ad_ids[rows], spent)
    return free


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
