"""Scores of given ads for given users: plain functions, no I/O, no clock.

Works on columns: one array operation does a step for all candidates of a user, and the answer's
lines are made from the columns at the very end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np

from app.serving.auction import expected_cpm
from app.serving.bundle import Bundle
from app.serving.live import LiveCatalog
from models.errors import FeatureUnknown, FeatureValueInvalid
from models.offset import sigmoid
from models.types import Bools, FeatureValue, Float64s, Int64s

_User = Mapping[str, FeatureValue]


class ScoreQuery(msgspec.Struct, frozen=True):
    """Score these ads for one user. Feature names come without their `user.`."""

    user: _User
    ad_ids: Sequence[int]


class ScoredAd(msgspec.Struct, frozen=True, gc=False):
    """One scored ad; an ad that the catalog does not have has no figures.

    `reason` says why the ad is not eligible, see `app.serving.eligibility.REASONS`.
    """

    ad_id: int
    known: bool
    pctr: float | None
    bid_micros: int | None
    ecpm_micros: int | None
    eligible: bool
    reason: str | None


class ScoredUser(msgspec.Struct, frozen=True, gc=False):
    """One user's scores, each list in the order of the user's candidates.

    `pctr` and `ecpm_micros` are null for an ad that the catalog does not have; `reasons` says why
    an ad is not eligible and is null for one that is.
    """

    pctr: list[float | None]
    ecpm_micros: list[int | None]
    reasons: list[str | None]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """m candidates: int64 [m] `rows`, some known row in place of one the catalog lacks, and `bids`
    in micros; bool [m] `per_click`; `unknown`: the places of those that the catalog lacks."""

    ad_ids: Sequence[int]
    rows: Int64s
    bids: Int64s
    per_click: Bools
    unknown: list[int]


@dataclass(frozen=True, slots=True)
class _Figures:
    """float64 [m] pCTR and eCPM in micros, and why each is not eligible."""

    pctr: Float64s
    ecpm: Float64s
    reasons: list[str | None]


def score(bundle: Bundle, query: ScoreQuery, now_ms: int) -> list[ScoredAd]:
    """Score ads for one user, in the order asked for.

    Raises `FeatureUnknown` and `FeatureValueInvalid`.
    """
    candidates = _candidates(bundle.live, query.ad_ids)
    found = _figures(bundle, query.user, candidates, now_ms)
    reasons = found.reasons
    lines = map(
        ScoredAd,
        query.ad_ids,
        repeat(True),
        found.pctr.tolist(),
        candidates.bids.tolist(),
        _whole(found.ecpm).tolist(),
        [reason is None for reason in reasons] if any(reasons) else repeat(True),
        reasons,
    )
    scored = list(lines)
    for at in candidates.unknown:
        scored[at] = ScoredAd(query.ad_ids[at], False, None, None, None, False, "unknown_ad")
    return scored


def score_many(bundle: Bundle, queries: Sequence[ScoreQuery], now_ms: int) -> list[ScoredUser]:
    """Score ads for many users; the figures are to the bit those that `score` gives.

    Queries that hold the same list of ads share the look-up. Raises `FeatureUnknown` and
    `FeatureValueInvalid`, which name the user.
    """
    known: dict[int, _Candidates] = {}
    scored = []
    for at, query in enumerate(queries):
        key = id(query.ad_ids)  # the queries keep their lists alive
        candidates = known.get(key)
        if candidates is None:
            candidates = known[key] = _candidates(bundle.live, query.ad_ids)
        try:
            scored.append(_scored_user(bundle, query.user, candidates, now_ms))
        except (FeatureUnknown, FeatureValueInvalid) as error:
            field = f"users[{at}].{error.field.removeprefix('user.')}"
            raise type(error)(field, error.value, error.limit, error.remedy) from error
    return scored


def _scored_user(bundle: Bundle, user: _User, candidates: _Candidates, now_ms: int) -> ScoredUser:
    found = _figures(bundle, user, candidates, now_ms)
    pctr: list[float | None] = found.pctr.tolist()
    ecpm: list[int | None] = _whole(found.ecpm).tolist()
    reasons = found.reasons
    for at in candidates.unknown:
        pctr[at], ecpm[at], reasons[at] = None, None, "unknown_ad"
    return ScoredUser(pctr, ecpm, reasons)


def _candidates(live: LiveCatalog, ad_ids: Sequence[int]) -> _Candidates:
    rows = live.rows_of(ad_ids)
    unknown: list[int] = []
    if len(rows) and rows.min() < 0:
        unknown = np.flatnonzero(rows < 0).tolist()
        if len(unknown) == len(rows):
            none = np.zeros(len(rows), np.int64)
            return _Candidates(ad_ids, none[:0], none, none.astype(np.bool_), unknown)
        rows[unknown] = rows.max()
    columns = live.columns
    return _Candidates(
        ad_ids, rows, columns.bid_micros.take(rows), columns.per_click.take(rows), unknown
    )


def _figures(bundle: Bundle, user: _User, candidates: _Candidates, now_ms: int) -> _Figures:
    side, live, rows = bundle.users.of(user), bundle.live, candidates.rows
    if not len(rows):
        nothing = np.zeros(len(candidates.ad_ids))
        return _Figures(nothing, nothing, [None] * len(nothing))
    pctr = sigmoid(live.searchable.scores(rows, side))
    reasons = live.eligibility.reasons_of(user, rows, now_ms)
    return _Figures(pctr, expected_cpm(pctr, candidates.bids, candidates.per_click), reasons)


def _whole(ecpm: Float64s) -> Int64s:
    return ecpm.astype(np.int64)  # not negative, so this is the floor
