"""Why an ad is on a page, and why another is not. Every ad that competes is scored."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
import numpy as np

from app.serving.auction import expected_cpm, most_of_one
from app.serving.bitmaps import among
from app.serving.bundle import Bundle
from app.serving.eligibility import STATE_CODES
from app.serving.page import Ask, Contest, Filled, contest, fill
from app.serving.pipeline import DecisionQuery, placed
from app.serving.retrieval import UserSide
from app.serving.trial import Exploration
from models.contributions import contributions
from models.offset import sigmoid
from models.types import Encoded, Float64s, Int64s

_STATES = {code: name for name, code in STATE_CODES.items()}


class ScorePart(msgspec.Struct, frozen=True):
    """A part of a score, in logits: the bias, a feature's main effect, or an interaction with the
    ad of one user feature or of a pair of them."""

    part: str
    features: list[str]
    logits: float


class ExplainedAd(msgspec.Struct, frozen=True):
    """One ad in one decision. What an unknown ad does not have is null.

    `reason` says why it is not on the page: the first cause of ineligibility, `house`,
    `below_floor`, `advertiser_limit`, `outbid` or `explored` (its slot went to a new ad); null for
    an ad on the page. `rank` counts competing ads by eCPM from 1. `needed_ecpm_micros`: what its
    eCPM would have to exceed for a slot, where that alone keeps it out. `is_new`: it may be tried
    in slots for exploration; `score_deviation`: how uncertain the model is of its score. The
    logits of `score_parts` sum to `score`.
    """

    ad_id: int
    reason: str | None
    slot: int | None = None
    price_micros: int | None = None
    explored: bool = False
    house: bool = False
    propensity: float | None = None
    state: str | None = None
    campaign_state: str | None = None
    advertiser_state: str | None = None
    meets_targeting: bool | None = None
    bid_micros: int | None = None
    pctr: float | None = None
    ecpm_micros: int | None = None
    rank: int | None = None
    needed_ecpm_micros: int | None = None
    is_new: bool | None = None
    score_deviation: float | None = None
    score: float | None = None
    score_parts: list[ScorePart] = []


class Explanation(msgspec.Struct, frozen=True):
    """A decision explained: the ads of its page, best slot first, then those asked for.

    `floor_micros`: the one in force; `competing`: how many ads took part in the auction;
    `is_trial`: whether its last slot went to a new ad.
    """

    decision_id: UUID
    snapshot_id: UUID
    catalog_version: int
    certified: bool
    floor_micros: int
    per_advertiser: int
    competing: int
    is_trial: bool
    ads: list[ExplainedAd]


def explain(
    bundle: Bundle,
    query: DecisionQuery,
    ad_ids: Sequence[int],
    now_ms: int,
    decision_id: UUID,
    exploration: Exploration | None = None,
) -> Explanation:
    """Explain what `decide` answers to the same, and what became of the ads `ad_ids`.

    Takes a second for 300,000 ads: not for the event loop. Raises as `decide`.
    """
    values, placement = placed(bundle, query)
    encoded, user = bundle.users.encoded(values)
    live = bundle.live
    excluded = [row for row in live.rows_of(query.exclude).tolist() if row >= 0]
    ask = Ask(query.slots, placement, query.floor_micros, query.per_advertiser)
    who = contest(live, values, now_ms, ask, excluded)
    page = fill(live, user, ask, who, decision_id, exploration)
    usual = fill(live, user, ask, who, decision_id).slots
    case = _Case(bundle, user, encoded, ask, who, page.slots, usual)
    shown = [int(live.columns.ad_ids[slot.row]) for slot in page.slots]
    wanted = [*shown, *(ad_id for ad_id in dict.fromkeys(ad_ids) if ad_id not in shown)]
    mask = live.eligibility.mask(values, now_ms, excluded)
    allowed = live.eligibility.targets.allowed(values)
    ads = []
    for ad_id, row in zip(wanted, live.rows_of(wanted).tolist(), strict=True):
        if row < 0:
            ads.append(ExplainedAd(ad_id, "unknown_ad"))
            continue
        at = np.array([row])
        [reason] = live.eligibility.reasons(at, mask, now_ms, excluded)
        ads.append(case.explained(row, reason, allowed is None or bool(among(allowed, at)[0])))
    return Explanation(
        decision_id=decision_id,
        snapshot_id=bundle.snapshot_id,
        catalog_version=live.version,
        certified=page.certified,
        floor_micros=who.floor_micros,
        per_advertiser=query.per_advertiser,
        competing=len(case.competing),
        is_trial=any(slot.explored for slot in page.slots),
        ads=ads,
    )


class _Case:
    """One decision with all that competed in it; `usual`: its slots without a trial."""

    def __init__(
        self,
        bundle: Bundle,
        user: UserSide,
        encoded: Encoded,
        ask: Ask,
        who: Contest,
        slots: list[Filled],
        usual: list[Filled],
    ) -> None:
        self._bundle, self._user, self._encoded = bundle, user, encoded
        self._ask, self._who, self._slots, self._usual = ask, who, slots, usual
        columns = bundle.live.columns
        bits = np.unpackbits(who.competing, count=len(columns), bitorder="little")
        self.competing: Int64s = np.flatnonzero(bits)
        self._ecpm = self._ecpms(self.competing)[1]

    def explained(self, row: int, reason: str | None, meets_targeting: bool) -> ExplainedAd:
        """All there is to say of one ad of the catalog; `reason`: why it is not eligible."""
        live, model = self._bundle.live, self._bundle.model
        columns = live.columns
        scores, ecpms = self._ecpms(np.array([row]))
        score, ecpm = float(scores[0]), float(ecpms[0])
        slot = next((at for at, filled in enumerate(self._slots) if filled.row == row), None)
        filled = None if slot is None else self._slots[slot]
        needed: float | None = None
        if filled is None and reason is None:
            reason, needed = self._lost(row, ecpm)
        is_known = len(model.ad_prior_variance) > 0
        deviation = float(np.sqrt(live.score_variances(np.array([row]))[0])) if is_known else None
        competes = bool(among(self._who.competing, np.array([row]))[0])
        return ExplainedAd(
            ad_id=int(columns.ad_ids[row]),
            reason=reason,
            slot=slot,
            price_micros=None if filled is None else filled.price_micros,
            explored=filled is not None and filled.explored,
            house=filled is not None and filled.house,
            propensity=None if filled is None else filled.propensity,
            state=_STATES.get(int(columns.state[row])),
            campaign_state=_STATES.get(int(columns.campaign_state[row])),
            advertiser_state=_STATES.get(int(columns.advertiser_state[row])),
            meets_targeting=meets_targeting,
            bid_micros=int(columns.bid_micros[row]),
            pctr=float(sigmoid(score)),
            ecpm_micros=int(ecpm),
            rank=self._rank(row, ecpm) if competes else None,
            needed_ecpm_micros=None if needed is None else int(needed),
            is_new=bool(among(live.new, np.array([row]))[0]),
            score_deviation=deviation,
            score=score,
            score_parts=self._parts(row, score),
        )

    def _ecpms(self, rows: Int64s) -> tuple[Float64s, Float64s]:
        columns = self._bundle.live.columns
        scores = self._bundle.live.searchable.scores(rows, self._user)
        bids, per_click = columns.bid_micros[rows], columns.per_click[rows]
        return scores, expected_cpm(sigmoid(scores), bids, per_click)

    def _rank(self, row: int, ecpm: float) -> int:
        ad_ids = self._bundle.live.columns.ad_ids
        ties = (self._ecpm == ecpm) & (ad_ids[self.competing] < ad_ids[row])
        return 1 + int((self._ecpm > ecpm).sum() + ties.sum())

    def _lost(self, row: int, ecpm: float) -> tuple[str, float | None]:
        """Why an eligible ad is not on the page, and what eCPM it would have needed."""
        if row in self._who.house:
            return "house", None
        if ecpm < self._who.floor_micros:
            return "below_floor", float(self._who.floor_micros)
        if any(one.row == row for one in self._usual):
            return "explored", None
        # A trial's ad took no part in the auction, nor did house ads, which no limit concerns.
        won = [one for one in self._slots if not one.explored and not one.house]
        owners = self._bundle.live.columns.advertiser_ids
        own = [one for one in won if owners[one.row] == owners[row]]
        if len(own) >= most_of_one(self._ask.slots, self._ask.per_advertiser):
            return "advertiser_limit", float(own[-1].ecpm_micros)
        return "outbid", float(won[-1].ecpm_micros) if won else None

    def _parts(self, row: int, score: float) -> list[ScorePart]:
        bundle = self._bundle
        schema, live = bundle.schema, bundle.live
        names = [[feature.full_name for feature in side] for side in (schema.user, schema.ad)]
        ad = live.columns.features(row, len(schema.ad))
        latent = live.searchable.vectors(np.array([row]))[0, :-2]
        found = contributions(bundle.model, (names[0], names[1]), self._encoded, ad, latent)
        parts = [
            ScorePart(
                "interaction" if one.interacts else "main effect" if one.features else "bias",
                list(one.features),
                one.value,
            )
            for one in found
        ]
        rest = score - sum(part.logits for part in parts)
        # Rounding, or what holds a new ad's score inside the promised range.
        return [*parts, ScorePart("limit" if abs(rest) > 1e-3 else "rounding", [], rest)]
