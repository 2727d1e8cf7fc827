"""From a query and a bundle to a decision: plain functions, no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from app.serving.bundle import Bundle
from app.serving.page import Ask, Filled, contest, fill, no_fill
from app.serving.targeting import value_texts
from app.serving.tokens import MAX_PLACEMENT, PLACEMENT_NAME, TokenContent, Tokens
from app.serving.trial import Exploration
from models.errors import FeatureValueInvalid
from models.features import Packing
from models.types import FeatureValue, Int64s

_User = Mapping[str, FeatureValue]
_NAME = re.compile(PLACEMENT_NAME)


class DecisionQuery(msgspec.Struct, frozen=True):
    """Choose ads for `slots` (≥ 1) slots, none of `exclude` (ad ids), none below the floor.

    At most `per_advertiser` of one advertiser.
    """

    user: _User
    slots: int
    placement: str = ""
    exclude: Sequence[int] = ()
    floor_micros: int = 0
    per_advertiser: int = 50


class DecidedAd(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ad in one slot (counted from 0); `price_micros` is per click, or per thousand for CPM.

    `house`: the placement's own ad, in a slot that nobody bought, free. `explored`: a new ad, tried
    there to learn about it, whatever its eCPM.
    """

    slot: int
    ad_id: int
    pctr: float
    ecpm_micros: int
    price_micros: int
    creative: dict[str, str]
    token: str
    house: bool = False
    explored: bool = False


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one ad request, best slot first.

    `certified`: no eligible ad that was passed over has a higher eCPM than the ads chosen, explored
    ones and ads aside of which the advertiser has its share already. `no_fill`: for an answer
    without ads, how many ads of the catalog were kept from it by each reason.
    """

    decision_id: UUID
    snapshot_id: UUID
    catalog_version: int
    certified: bool
    ads: list[DecidedAd]
    no_fill: dict[str, int] = {}


def decide(
    bundle: Bundle,
    query: DecisionQuery,
    now_ms: int,
    decision_id: UUID,
    tokens: Tokens,
    exploration: Exploration | None = None,
) -> Decision:
    """Choose and price ads for one request and seal a token for each.

    Without `exploration` no new ad is tried: the choice is deterministic, every propensity 1.
    Raises `FeatureUnknown`, and `FeatureValueInvalid` also for a placement above 32 characters
    or one that `user.placement` contradicts.
    """
    values, placement = placed(bundle, query)
    encoded, user = bundle.users.encoded(values)
    live = bundle.live
    excluded = _rows_there(live.rows_of(query.exclude)) if query.exclude else ()
    ask = Ask(query.slots, placement, query.floor_micros, query.per_advertiser)
    who = contest(live, values, now_ms, ask, excluded)
    page = fill(live, user, ask, who, decision_id, exploration)
    packing = Packing.of(encoded, len(bundle.schema.ad))
    sealing = _Sealing(bundle, placement, now_ms, decision_id, packing)
    ads = [_decided(sealing, tokens, slot, filled) for slot, filled in enumerate(page.slots)]
    reasons = {} if ads else no_fill(live, who, now_ms, excluded)
    return Decision(decision_id, bundle.snapshot_id, live.version, page.certified, ads, reasons)


class _Sealing(msgspec.Struct, frozen=True):
    """What all tokens of one decision have in common."""

    bundle: Bundle
    placement: str
    now_ms: int
    decision_id: UUID
    user: Packing


def placed(bundle: Bundle, query: DecisionQuery) -> tuple[_User, str]:
    """The user's features and the placement: one thing where the schema takes a placement.

    A value of `user.placement` that cannot be a placement's name is a feature and nothing else.
    """
    if len(query.placement) > MAX_PLACEMENT:
        raise FeatureValueInvalid(
            "placement",
            query.placement,
            f"at most {MAX_PLACEMENT} characters",
            "Shorten the name of the placement.",
        )
    if not bundle.takes_placement:
        return query.user, query.placement
    given = value_texts("placement", query.user.get("placement"))
    if given and query.placement:
        _check_same(query, given)
    if given and not query.placement:
        return query.user, _name_in(given)
    return {**query.user, "placement": query.placement}, query.placement


def _check_same(query: DecisionQuery, given: tuple[str, ...]) -> None:
    if given != (query.placement,):
        raise FeatureValueInvalid(
            "user.placement",
            query.user["placement"],
            f"it differs from the decision's placement, {query.placement}",
            "Give only one of them, or make them equal.",
        )


def _name_in(given: tuple[str, ...]) -> str:
    """The placement that the feature names, if it names one."""
    is_name = len(given) == 1 and len(given[0]) <= MAX_PLACEMENT and _NAME.fullmatch(given[0])
    return given[0] if is_name else ""


def _rows_there(rows: Int64s) -> list[int]:
    there: list[int] = rows[rows >= 0].tolist()
    return there


def _decided(sealing: _Sealing, tokens: Tokens, slot: int, filled: Filled) -> DecidedAd:
    columns, row = sealing.bundle.live.columns, filled.row
    ad_id = int(columns.ad_ids[row])
    content = TokenContent(
        decision_id=sealing.decision_id,
        decided_ms=sealing.now_ms,
        ad_id=ad_id,
        slot=slot,
        snapshot_id=sealing.bundle.snapshot_id,
        catalog_version=sealing.bundle.live.version,
        price_micros=filled.price_micros,
        propensity=filled.propensity,
        placement=sealing.placement,
        explored=filled.explored,
        features=sealing.user.beside(columns.encoded[row]),
    )
    return DecidedAd(
        slot,
        ad_id,
        filled.pctr,
        filled.ecpm_micros,
        filled.price_micros,
        columns.creative(row),
        tokens.seal(content),
        filled.house,
        filled.explored,
    )
