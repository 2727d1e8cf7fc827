"""Why an ad is not shown: a decision for a visitor that one describes, explained by `serve`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.dashboard.calls import CallFailed
from jobs.dashboard.fields import Field
from jobs.dashboard.frame import Page
from jobs.dashboard.parts import Submit, Text, attribute, box, empty, facts, form, pill, prose
from jobs.dashboard.units import count, decimal, money, percent
from models.schema import Feature

_FILLED = "placement"
_PARTS = 12
_LEAST = 0.005  # shown with two decimals
_REASONS = {
    "unknown_ad": "`serve` does not know this ad. A new one is known within a second; look again.",
    "paused": "The ad is paused. Resume it.",
    "retired": "The ad is retired, for ever.",
    "campaign_paused": "Its campaign is paused. Resume that.",
    "campaign_retired": "Its campaign is retired.",
    "advertiser_paused": "Its advertiser is paused. Resume that.",
    "advertiser_retired": "Its advertiser is retired.",
    "not_started": "Its flight has not begun.",
    "ended": "Its flight is over.",
    "schedule": "Its schedule does not have this hour.",
    "targeting": "Its targeting does not take this visitor.",
    "excluded": "The request excludes it.",
    "house": "It is a house ad of this placement: it serves only where the auction leaves a slot.",
    "below_floor": "What it is expected to bring is below the floor.",
    "advertiser_limit": "Better ads of its advertiser have taken the slots that one may have.",
    "outbid": "Others are expected to bring more.",
    "explored": "Its slot went to a new ad, which is being tried.",
}


class WhyNot:
    """The form and its answer."""

    def __init__(self, page: Page, ad_id: int) -> None:
        self._page, self._ad_id = page, ad_id
        features = [one for one in page.desk.schema.user if one.name != _FILLED]
        with form(self._explain):
            with box("fields grow"):
                self._user = {one.name: (one, _field(one)) for one in features}
                self._placement = Field("placement", "any")
                self._slots = Field("slots", value="3", kind="number")
            Submit("Explain", "strong")
        self._place = attribute(box(), role="status")

    async def _explain(self) -> None:
        body = {
            "user": self._visitor(),
            "slots": max(1, min(50, int(self._slots.number() or 3))),
            "ad_ids": [self._ad_id],
        }
        if self._placement.value.strip():
            body["placement"] = self._placement.value.strip()
        calls, session = self._page.desk.calls, self._page.session
        self._place.clear()
        try:
            answer = await calls.make(session, "POST", "/v1/decisions:explain", body)
        except CallFailed as error:
            with self._place:
                prose(str(error), "bad", tag="p")
                for remedy in error.remedies:
                    prose(remedy, "small soft", tag="p")
            return
        with self._place:
            _answered(answer.body, self._ad_id)

    def _visitor(self) -> dict[str, object]:
        """What was filled in, as a request gives it."""
        given: dict[str, object] = {}
        for name, (feature, field) in self._user.items():
            text = field.value.strip()
            if not text:
                continue
            if feature.kind == "multi":
                given[name] = [one.strip() for one in text.split(",") if one.strip()]
            elif feature.kind == "numeric":
                given[name] = field.number()
            else:
                given[name] = text
        return given


def _field(feature: Feature) -> Field:
    hints = {"multi": "a, b, c", "numeric": "a number", "categorical": "missing"}
    kind = "number" if feature.kind == "numeric" else "text"
    return Field(feature.name, hints.get(feature.kind, ""), kind=kind)


def _answered(found: Mapping[str, Any], ad_id: int) -> None:
    mine = next((one for one in found["ads"] if one["ad_id"] == ad_id), None)
    if mine is None:
        empty("The answer does not have this ad.")
        return
    with box("acts"):
        if mine["reason"] is None:
            pill(f"shown, slot {mine['slot'] + 1}", "good")
            Text(f"It pays {money(mine['price_micros'])}.", tag="span")
        else:
            pill(mine["reason"].replace("_", " "), "warn")
            Text(_REASONS.get(mine["reason"], mine["reason"].replace("_", " ")), tag="span")
    facts(_figures(found, mine))
    _parts(mine.get("score_parts") or [])


def _figures(found: Mapping[str, Any], mine: Mapping[str, Any]) -> list[tuple[str, str]]:
    competing = f"{count(found['competing'])} that compete"
    rank = f"none: it is not one of the {competing}"
    pairs = [
        ("Rank", rank if mine["rank"] is None else f"{mine['rank']:,} of {competing}"),
        ("Click probability", percent(mine["pctr"])),
        ("Expected per thousand", money(mine["ecpm_micros"])),
        ("Floor per thousand", money(found["floor_micros"])),
    ]
    if mine["needed_ecpm_micros"] is not None:
        pairs.insert(3, ("Needed for a slot, more than", money(mine["needed_ecpm_micros"])))
    if mine["meets_targeting"] is not None:
        pairs.append(("Targeting", "meets it" if mine["meets_targeting"] else "does not meet it"))
    if mine.get("score_deviation") is not None:
        pairs.append(("Uncertainty of its score", f"± {decimal(mine['score_deviation'])} logits"))
    return pairs


def _parts(parts: Sequence[Mapping[str, Any]]) -> None:
    """The parts of the score as bars, the largest first."""
    if not parts:
        return
    ordered = sorted(parts, key=lambda one: -abs(float(one["logits"])))[:_PARTS]
    ordered = [one for one in ordered if abs(float(one["logits"])) >= _LEAST]
    widest = max((abs(float(one["logits"])) for one in ordered), default=1.0)
    Text("What its score is made of, in logits", "small soft")
    with attribute(box("parts"), role="list"):
        for one in ordered:
            logits = float(one["logits"])
            name = " × ".join(one["features"]) or one["part"]
            is_interaction = one["part"] == "interaction"
            Text(f"{name} with the ad" if is_interaction else name, tag="span")
            bar = box("bar minus" if logits < 0 else "bar")
            bar.style(f"width:{100 * abs(logits) / widest:.1f}%")
            Text(f"{logits:+.2f}", tag="span")
