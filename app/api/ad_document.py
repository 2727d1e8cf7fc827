"""Ads, campaigns and advertisers between their documents (HTTP, NDJSON) and the catalog's rows."""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET

from app.api.body import refuse
from app.api.moments import EARLIEST_MS, LATEST_MS, milliseconds, moment_or_none
from app.api.schedule import schedule_body, schedule_of
from app.api.schemas import AdBody, AdvertiserBody, CampaignBody, FlightBody, TargetingBody
from app.api.views import AdvertiserView, AdView, CampaignView
from models.errors import FeatureUnknown, FeatureValueInvalid
from models.features import Encoder, Schema
from models.targeting import parse_targeting, render_targeting
from models.types import (
    MAX_ID,
    Ad,
    Advertiser,
    Campaign,
    Clause,
    FeatureValue,
    Targeting,
)

_DERIVED = ("creative", "campaign", "advertiser")


def ad_of(body: AdBody, encoder: Encoder, ad_id: int | None = None) -> Ad:
    """The ad of a document, checked against the feature schema.

    `ad_id`: the id that the address names. The advertiser follows from the campaign when the ad is
    stored. Raises `BodyInvalid`, `FeatureUnknown` and `FeatureValueInvalid` with the field's path.
    """
    _check_features(body.features, encoder)
    _check_creative(body)
    start, end = _flight(body.flight)
    return Ad(
        id=identity(body.id, ad_id),
        campaign_id=body.campaign_id,
        advertiser_id=0,
        bid_micros=body.bid_micros,
        bid_type=body.bid_type,
        state=body.state,
        features=body.features,
        targeting=_targeting(body.targeting, encoder.schema),
        flight_start_ms=start,
        flight_end_ms=end,
        creative=body.creative,
        schedule=schedule_of(body.schedule),
    )


def campaign_of(body: CampaignBody, campaign_id: int | None = None) -> Campaign:
    """The campaign of a document. Raises `BodyInvalid`."""
    return Campaign(identity(body.id, campaign_id), body.advertiser_id, body.state, body.name)


def advertiser_of(body: AdvertiserBody, advertiser_id: int | None = None) -> Advertiser:
    """The advertiser of a document. Raises `BodyInvalid`."""
    return Advertiser(identity(body.id, advertiser_id), body.state, body.name)


def identity(given: object, named: int | None) -> int:
    """The id that the address names, or the document's; they may not differ."""
    if named is None:
        if not isinstance(given, int):
            raise refuse("id", None, f"an integer from 1 to {MAX_ID}", "Add the id.")
        return given
    if given is not UNSET and given != named:
        raise refuse(
            "id", given, f"the address names {named}", "Leave the id out, or make them equal."
        )
    return named


def ad_view(ad: Ad) -> AdView:
    """The document of an ad."""
    return AdView(
        id=ad.id,
        campaign_id=ad.campaign_id,
        advertiser_id=ad.advertiser_id,
        state=ad.state,
        bid_type=ad.bid_type,
        bid_micros=ad.bid_micros,
        features=dict(ad.features),
        targeting=msgspec.convert(render_targeting(ad.targeting), TargetingBody),
        flight=FlightBody(
            start=moment_or_none(ad.flight_start_ms), end=moment_or_none(ad.flight_end_ms)
        ),
        schedule=schedule_body(ad.schedule),
        creative=dict(ad.creative),
        version=ad.version,
    )


def campaign_view(campaign: Campaign) -> CampaignView:
    """The document of a campaign."""
    return CampaignView(
        id=campaign.id,
        advertiser_id=campaign.advertiser_id,
        state=campaign.state,
        name=campaign.name,
        version=campaign.version,
    )


def advertiser_view(advertiser: Advertiser) -> AdvertiserView:
    """The document of an advertiser."""
    return AdvertiserView(
        id=advertiser.id,
        state=advertiser.state,
        name=advertiser.name,
        version=advertiser.version,
    )


def _check_features(features: dict[str, FeatureValue], encoder: Encoder) -> None:
    for name, value in features.items():
        place = f"features.{name}"
        if name in _DERIVED:
            remedy = "Leave it out."
            raise refuse(place, value, "this feature comes from the ad's ids", remedy)
        _check_storable(place, value)
        try:
            encoder.encode_ad({name: value})
        except FeatureUnknown as error:
            limit = f"the features of an ad are {', '.join(_given(encoder.schema))}"
            raise FeatureUnknown(place, error.value, limit, error.remedy) from error
        except FeatureValueInvalid as error:
            raise FeatureValueInvalid(place, error.value, error.limit, error.remedy) from error


def _given(schema: Schema) -> list[str]:
    """The features that a document gives; the others come from the ad's ids."""
    return [feature.name for feature in schema.ad if feature.name not in _DERIVED]


def _check_storable(place: str, value: FeatureValue) -> None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and "\0" in item:
            limit = "the database cannot store the character NUL"
            raise refuse(place, item, limit, "Remove it.")


def _check_creative(body: AdBody) -> None:
    # A javascript: address in a landing page would run in the publisher's page.
    for name, text in body.creative.items():
        if name.endswith("_url") and not text.startswith(("https://", "http://")):
            place = f"creative.{name}"
            raise refuse(place, text, "it must start with https:// or http://", "Mend the address.")


def _flight(flight: FlightBody) -> tuple[int | None, int | None]:
    start, end = _moment("flight.start", flight.start), _moment("flight.end", flight.end)
    if start is not None and end is not None and start >= end:
        raise refuse("flight.end", str(flight.end), "it must be after the start", "Move the end.")
    return start, end


def _moment(place: str, given: datetime | None) -> int | None:
    """Milliseconds since 1970. An offset from UTC can move a time out of the years 1 to 9999."""
    found = milliseconds(given)
    if found is not None and not EARLIEST_MS <= found <= LATEST_MS:
        limit = "a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z"
        raise refuse(place, str(given), limit, "Leave it out where there is no such limit.")
    return found


def _targeting(body: TargetingBody, schema: Schema) -> Targeting:
    targeting = parse_targeting(msgspec.to_builtins(body))
    known = {feature.full_name: feature.kind for feature in schema.user}
    for group in ("all", "any", "none"):
        for index, clause in enumerate(getattr(targeting, group)):
            where = f"targeting.{group}[{index}].{clause.feature}"
            _check_storable(where, list(clause.values or ()))
            if clause.feature not in known:
                limit = f"the user features are {', '.join(sorted(known))}"
                remedy = "Correct the name or drop the clause."
                raise FeatureUnknown(where, clause.feature, limit, remedy)
            if clause.values is None and known[clause.feature] != "numeric":
                limit = f"only a numeric feature takes a range; this is {known[clause.feature]}"
                raise refuse(where, _range_of(clause), limit, 'List its values, as in ["us"].')
    return targeting


def _range_of(clause: Clause) -> str:
    return f"{clause.minimum} to {clause.maximum}"
