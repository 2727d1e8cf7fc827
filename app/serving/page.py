"""Filling one page: the placement's floor, the auction, then house ads where a slot stays empty."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np

from app.serving.auction import Candidates, auction, candidates_needed, most_of_one
from app.serving.bitmaps import among, without
from app.serving.eligibility import REASONS, UNKNOWN
from app.serving.live import LiveCatalog
from app.serving.retrieval import Retrieved, UserSide, retrieve
from app.serving.trial import LEAST_PROPENSITY, Exploration, Trial, is_trial
from models.offset import sigmoid
from models.types import Bytes, FeatureValue, Int64s, Placement

NO_PLACEMENT = Placement("")


@dataclass(frozen=True, slots=True)
class Ask:
    """What one request asks for: `slots` ≥ 1, at most `per_advertiser` ≥ 1 ads of one advertiser.

    `floor_micros`: the least eCPM that the request itself sets.
    """

    slots: int
    placement: str = ""
    floor_micros: int = 0
    per_advertiser: int = 1


@dataclass(frozen=True, slots=True)
class Filled:
    """One slot: the ad's row, pctr, eCPM and price in micros, and how it came there.

    `propensity`: the probability that this ad would come there, were the request made again.
    """

    row: int
    pctr: float
    ecpm_micros: int
    price_micros: int
    house: bool = False
    explored: bool = False
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Page:
    """The slots that are filled, the best first.

    `certified`: no ad that might have been placed instead has a higher eCPM than an ad placed, that
    of a trial aside.
    """

    slots: list[Filled]
    certified: bool


@dataclass(frozen=True, slots=True)
class Contest:
    """Who may serve one request: packed bitmap `competing`, and the house ads' rows in order.

    `floor_micros`: the higher one of the request's and the placement's.
    """

    competing: Bytes
    house: Int64s
    floor_micros: int


def contest(
    live: LiveCatalog,
    user: Mapping[str, FeatureValue],
    now_ms: int,
    ask: Ask,
    excluded: Collection[int] = (),
) -> Contest:
    """Who may serve. A placement's house ads do not compete there.

    `user`: values by name without prefix; `excluded`: rows that may not serve.
    """
    mask = live.eligibility.mask(user, now_ms, excluded)
    placement = live.placements.get(ask.placement, NO_PLACEMENT)
    floor_micros = max(ask.floor_micros, placement.floor_micros)
    if not placement.house_ads:
        return Contest(mask, np.zeros(0, np.int64), floor_micros)
    rows = live.rows_of(placement.house_ads)
    rows = rows[rows >= 0]
    house = rows[among(mask, rows)]
    without(mask, rows.tolist())
    return Contest(mask, house, floor_micros)


def fill(
    live: LiveCatalog,
    user: UserSide,
    ask: Ask,
    who: Contest,
    decision_id: UUID,
    exploration: Exploration | None = None,
) -> Page:
    """Choose and price the ads of one page."""
    found = best(live, user, ask, who)
    columns = live.columns
    candidates = Candidates(
        columns.ad_ids.take(found.rows),
        columns.advertiser_ids.take(found.rows),
        columns.bid_micros.take(found.rows),
        columns.per_click.take(found.rows),
        found.pctr,
    )
    placed = auction(
        candidates,
        slots=ask.slots,
        floor_micros=who.floor_micros,
        per_advertiser=most_of_one(ask.slots, ask.per_advertiser),
    )
    rows, pctr = found.rows.tolist(), found.pctr.tolist()
    slots = [
        Filled(rows[at], pctr[at], won.ecpm_micros, won.price_micros)
        for won in placed
        for at in (won.candidate,)
    ]
    if exploration is not None and len(slots) == ask.slots:
        slots[-1] = _last(live, user, ask, who, slots, decision_id, exploration)
    return Page(slots + _backfill(live, user, who, ask.slots - len(slots)), found.certified)


def no_fill(
    live: LiveCatalog, who: Contest, now_ms: int, excluded: Collection[int] = ()
) -> dict[str, int]:
    """Why each ad of the catalog is not on an empty page: how many by reason.

    Reasons are those of `app.serving.eligibility.REASONS` and `below_floor`.
    """
    known = np.flatnonzero(live.columns.state != UNKNOWN)
    codes = live.eligibility.codes(known, who.competing, now_ms, excluded)
    counts = np.bincount(codes, minlength=len(REASONS)).tolist()
    named = dict(zip(("below_floor", *REASONS[1:]), counts, strict=True))
    return {str(name): count for name, count in named.items() if count}


def best(live: LiveCatalog, user: UserSide, ask: Ask, who: Contest) -> Retrieved:
    """The best ads under the advertisers' limit, as many as winners and prices depend on."""
    needed, limit = (of(ask.slots, ask.per_advertiser) for of in (candidates_needed, most_of_one))
    return retrieve(live.searchable, who.competing, user, needed, who.floor_micros, limit)


def _last(
    live: LiveCatalog,
    user: UserSide,
    ask: Ask,
    who: Contest,
    slots: list[Filled],
    decision_id: UUID,
    exploration: Exploration,
) -> Filled:
    """The last slot of a full page: its winner, or the ad of a trial."""
    usual, chance = slots[-1], exploration.chance(ask.slots)
    new = who.competing & live.new
    if chance <= 0.0 or not new.any():
        return usual
    shown = [slot.row for slot in slots]
    limit = most_of_one(ask.slots, ask.per_advertiser)
    trial = Trial(live, user, new, who.floor_micros, shown, limit, exploration)
    found = trial.tried(decision_id) if is_trial(exploration, decision_id, ask.slots) else None
    if found is not None:
        won, probability = found.won, chance * found.probability
        return Filled(
            found.row, found.pctr, won.ecpm_micros, won.price_micros, False, True, probability
        )
    if not trial.is_possible(decision_id):
        return usual
    return replace(usual, propensity=max(1.0 - chance, LEAST_PROPENSITY))


def _backfill(live: LiveCatalog, user: UserSide, who: Contest, empty: int) -> list[Filled]:
    """House ads for the slots left empty. They are free, and earn nothing."""
    rows = who.house[:empty]
    if not len(rows):
        return []
    pctr = sigmoid(live.searchable.scores(rows, user)).tolist()
    return [Filled(row, p, 0, 0, True) for row, p in zip(rows.tolist(), pctr, strict=True)]
