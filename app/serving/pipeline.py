"""From a query and a bundle to scores or a decision: plain functions, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
import numpy as np

from app.serving.auction import Placed, auction, expected_cpm
from app.serving.bundle import Bundle
from app.serving.retrieval import Retrieved, UserSide, retrieve
from app.serving.targeting import value_texts
from app.serving.tokens import MAX_PLACEMENT, TokenContent, Tokens
from models.errors import FeatureValueInvalid
from models.features import pack
from models.offset import sigmoid
from models.types import Encoded, FeatureValue, Int64s

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


class DecisionQuery(msgspec.Struct, frozen=True):
    """Choose ads for `slots` (≥ 1) slots, none of `exclude` (ad ids), none below the floor."""

    user: _User
    slots: int
    placement: str = ""
    exclude: Sequence[int] = ()
    floor_micros: int = 0


class DecidedAd(msgspec.Struct, frozen=True):
    """One ad in one slot (counted from 0); `price_micros` is per click, or per thousand for CPM."""

    slot: int
    ad_id: int
    pctr: float
    ecpm_micros: int
    price_micros: int
    creative: dict[str, str]
    token: str


class Decision(msgspec.Struct, frozen=True):
    """The answer to one ad request, best slot first.

    `certified`: no eligible ad that was passed over has a higher eCPM than the ads chosen.
    """

    decision_id: UUID
    snapshot_id: UUID
    catalog_version: int
    certified: bool
    ads: list[DecidedAd]


def score(bundle: Bundle, query: ScoreQuery, now_ms: int) -> list[ScoredAd]:
    """Score ads for one user, in the order asked for.

    Raises `FeatureUnknown` and `FeatureValueInvalid`.
    """
    _, user = _user_side(bundle, query.user)
    live = bundle.live
    rows = live.rows_of(query.ad_ids)
    is_known = rows >= 0
    if not is_known.any():
        return [_unknown(ad_id) for ad_id in query.ad_ids]
    known = rows if is_known.all() else np.where(is_known, rows, rows.max())
    mask = live.eligibility.mask(query.user, now_ms)
    pctr = sigmoid(live.searchable.scores(known, user))
    bids = live.columns.bid_micros[known]
    ecpm = expected_cpm(pctr, bids, live.columns.per_click[known])
    columns = (
        query.ad_ids,
        pctr.tolist(),
        bids.tolist(),
        ecpm.astype(np.int64).tolist(),  # not negative, so this is the floor
        live.eligibility.reasons(known, mask, now_ms),
    )
    scored = [
        ScoredAd(ad_id, True, p, bid, e, reason is None, reason)
        for ad_id, p, bid, e, reason in zip(*columns, strict=True)
    ]
    for at in np.flatnonzero(~is_known).tolist() if known is not rows else ():
        scored[at] = _unknown(query.ad_ids[at])
    return scored


def decide(
    bundle: Bundle, query: DecisionQuery, now_ms: int, decision_id: UUID, tokens: Tokens
) -> Decision:
    """Choose and price ads for one request and seal a token for each.

    The propensity in every token is 1.0: nothing is explored yet, the choice is deterministic.
    Raises `FeatureUnknown`, and `FeatureValueInvalid` also for a placement above 32 characters
    or one that `user.placement` contradicts.
    """
    values = _with_placement(bundle, query)
    encoded, user = _user_side(bundle, values)
    live = bundle.live
    excluded = _rows_there(live.rows_of(query.exclude)) if query.exclude else ()
    mask = live.eligibility.mask(values, now_ms, excluded)
    found = retrieve(live.searchable, mask, user, query.slots + 1, query.floor_micros)
    placed = _placed(bundle, found, query)
    sealing = _Sealing(bundle, query, now_ms, decision_id, encoded)
    ads = [
        _decided(sealing, tokens, slot, int(found.rows[winner.candidate]), found, winner)
        for slot, winner in enumerate(placed)
    ]
    return Decision(decision_id, bundle.snapshot_id, live.version, found.certified, ads)


class _Sealing(msgspec.Struct, frozen=True):
    """What all tokens of one decision have in common."""

    bundle: Bundle
    query: DecisionQuery
    now_ms: int
    decision_id: UUID
    user: Encoded


def _user_side(bundle: Bundle, values: _User) -> tuple[Encoded, UserSide]:
    encoded = bundle.encoder.encode_user(values)
    latent, main = bundle.model.user_vector(encoded)
    return encoded, UserSide(latent, bundle.model.bias + main)


def _with_placement(bundle: Bundle, query: DecisionQuery) -> _User:
    """The user's features; the placement is one where the schema says so and none was given."""
    if len(query.placement) > MAX_PLACEMENT:
        raise FeatureValueInvalid(
            "placement",
            query.placement,
            f"at most {MAX_PLACEMENT} characters",
            "Shorten the name of the placement.",
        )
    if not bundle.takes_placement:
        return query.user
    given = value_texts("placement", query.user.get("placement"))
    if not given or not query.placement:
        return query.user if given else {**query.user, "placement": query.placement}
    if given != (query.placement,):
        raise FeatureValueInvalid(
            "user.placement",
            query.user["placement"],
            f"it differs from the decision's placement, {query.placement}",
            "Give only one of them, or make them equal.",
        )
    return {**query.user, "placement": query.placement}


def _unknown(ad_id: int) -> ScoredAd:
    return ScoredAd(ad_id, False, None, None, None, False, "unknown_ad")


def _rows_there(rows: Int64s) -> list[int]:
    there: list[int] = rows[rows >= 0].tolist()
    return there


def _placed(bundle: Bundle, found: Retrieved, query: DecisionQuery) -> list[Placed]:
    columns = bundle.live.columns
    return auction(
        columns.ad_ids[found.rows],
        found.pctr,
        columns.bid_micros[found.rows],
        columns.per_click[found.rows],
        slots=query.slots,
        floor_micros=query.floor_micros,
    )


def _decided(
    sealing: _Sealing, tokens: Tokens, slot: int, row: int, found: Retrieved, winner: Placed
) -> DecidedAd:
    columns = sealing.bundle.live.columns
    ad_id = int(columns.ad_ids[row])
    ad = columns.features(row, len(sealing.bundle.schema.ad))
    content = TokenContent(
        decision_id=sealing.decision_id,
        decided_ms=sealing.now_ms,
        ad_id=ad_id,
        slot=slot,
        snapshot_id=sealing.bundle.snapshot_id,
        catalog_version=sealing.bundle.live.version,
        price_micros=winner.price_micros,
        propensity=1.0,
        placement=sealing.query.placement,
        explored=False,
        features=pack(sealing.user, ad),
    )
    pctr = float(found.pctr[winner.candidate])
    creative, token = columns.creative(row), tokens.seal(content)
    return DecidedAd(slot, ad_id, pctr, winner.ecpm_micros, winner.price_micros, creative, token)
