"""`/v1/ads`: the ads of the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from msgspec import UNSET

from app.api import body
from app.api.acknowledgement import Acknowledgement, acknowledged
from app.api.ad_document import ad_of, ad_view
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, IdInPath, IdInQuery, Limit, after_id, page
from app.api.openapi import operation
from app.api.schemas import AdBody, AdChangeBody, AdPatch, BulkRequest
from app.api.services import Services, services_of
from app.api.views import AdChange, AdList, AdView, BulkChange, Reason, RefusedChange
from app.storage.ad_changes import AdChange as StoredChange
from app.storage.errors import NotFound
from models.types import Ad, State

router = APIRouter(prefix="/v1/ads", tags=["catalog"], dependencies=[Depends(needs("admin"))])
_put = msgspec.json.Decoder(AdBody)
_patch = msgspec.json.Decoder(AdPatch)
_bulk = msgspec.json.Decoder(BulkRequest)
_CHANGED = {200: AdChange, 202: AdChange}
_EXAMPLE: dict[str, Any] = {
    "campaign_id": 7,
    "state": "active",
    "bid_type": "cpc",
    "bid_micros": 350_000,
    "features": {"category": ["shoes", "running"], "format": "card"},
    "targeting": {"all": [{"user.geo": ["us", "ca"]}, {"user.hour": {"min": 8, "max": 22}}]},
    "flight": {"start": "2026-11-22T00:00:00Z", "end": None},
    "schedule": {
        "timezone": "Europe/Berlin",
        "hours": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "22:00"}],
    },
    "creative": {"title": "Run", "landing_url": "https://example.com/run"},
}


@router.put(
    "/{ad_id}",
    **operation(
        summary="Create or replace an ad",
        scope="admin",
        body=AdBody,
        answers=_CHANGED,
        faults=(409,),
        example=_EXAMPLE,
    ),
)
async def put(request: Request, ad_id: IdInPath, actor: Actor) -> Response:
    """200 once every live worker has the change; 202 with those not heard from in time."""
    services = services_of(request)
    given = await body.read(request, _put, services.settings.max_body_bytes)
    ad = ad_of(given, services.encoder, ad_id)
    return await _changed(services, await services.catalog.put_ad(ad, actor))


@router.patch(
    "/{ad_id}",
    **operation(
        summary="Change an ad's state or bid",
        scope="admin",
        body=AdPatch,
        answers=_CHANGED,
        faults=(404, 409),
        example={"state": "paused"},
    ),
)
async def patch(request: Request, ad_id: IdInPath, actor: Actor) -> Response:
    """A pause holds on the next request of every acknowledged worker. `retired` is final."""
    services = services_of(request)
    given = await body.read(request, _patch, services.settings.max_body_bytes)
    if given.state is UNSET and given.bid_micros is UNSET:
        raise body.refuse("body", None, "it has neither state nor bid_micros", "Add one of them.")
    ad = await services.catalog.patch_ad(
        ad_id,
        actor,
        state=None if given.state is UNSET else given.state,
        bid_micros=None if given.bid_micros is UNSET else given.bid_micros,
    )
    return await _changed(services, ad)


@router.post(
    ":bulk",
    **operation(
        summary="Change many ads at once",
        scope="admin",
        body=BulkRequest,
        answers={200: BulkChange, 202: BulkChange},
        example={"changes": [{"id": 42, "state": "paused"}, {"id": 43, "bid_micros": 400_000}]},
    ),
)
async def bulk(request: Request, actor: Actor) -> Response:
    """States and bids of up to 5,000 ads, as one version of the catalog.

    A change that cannot be made is refused by itself, the others are made; but an ad named twice
    makes the whole body ambiguous, so 422. Like a single one the call answers once every live
    worker has them.
    """
    services = services_of(request)
    given = await body.read(request, _bulk, services.settings.max_body_bytes)
    _check_named_once(given.changes)
    asked, refused = _asked(given.changes)
    done = await services.catalog.patch_ads(list(asked.values()), actor)
    places = list(asked)
    for at, fault in done.refused.items():
        reason: Reason = "not_found" if isinstance(fault, NotFound) else "conflict"
        refused.append(_refused(places[at], given.changes[places[at]].id, reason, str(fault)))
    held = Acknowledgement([], [])
    if done.version is not None:
        held = await acknowledged(services, done.version)
    change = BulkChange(
        changed=len(done.ads),
        refused=sorted(refused, key=lambda one: one.index),
        catalog_version=done.version,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(change, held.status)


def _check_named_once(changes: Sequence[AdChangeBody]) -> None:
    first: dict[int, int] = {}
    for at, one in enumerate(changes):
        earlier = first.setdefault(one.id, at)
        if earlier != at:
            limit = f"changes[{earlier}] is of the same ad, and changes have no order"
            remedy = "Send one change for each ad."
            raise body.refuse(f"changes[{at}].id", one.id, limit, remedy)


def _asked(
    changes: Sequence[AdChangeBody],
) -> tuple[dict[int, StoredChange], list[RefusedChange]]:
    """The changes by their position, and those that change nothing."""
    asked: dict[int, StoredChange] = {}
    refused = []
    for at, one in enumerate(changes):
        state = None if one.state is UNSET else one.state
        bid = None if one.bid_micros is UNSET else one.bid_micros
        if state is None and bid is None:
            detail = "it has neither state nor bid_micros; add one of them"
            refused.append(_refused(at, one.id, "empty", detail))
        else:
            asked[at] = StoredChange(one.id, state, bid)
    return asked, refused


def _refused(at: int, ad_id: int, reason: Reason, detail: str) -> RefusedChange:
    return RefusedChange(index=at, id=ad_id, reason=reason, detail=detail)


@router.get("", **operation(summary="List ads", scope="admin", answers={200: AdList}))
async def list_(
    request: Request,
    limit: Limit = 100,
    cursor: Cursor = None,
    state: State | None = None,
    campaign_id: IdInQuery = None,
    advertiser_id: IdInQuery = None,
) -> Response:
    """Ads by ascending id, one page."""
    found = await services_of(request).catalog.list_ads(
        limit + 1,
        after_id(cursor),
        state=state,
        campaign_id=campaign_id,
        advertiser_id=advertiser_id,
    )
    kept, following = page(found, limit)
    return body.answer(AdList(items=[ad_view(ad) for ad in kept], next_cursor=following))


@router.get(
    "/{ad_id}",
    **operation(summary="Read an ad", scope="admin", answers={200: AdView}, faults=(404,)),
)
async def get(request: Request, ad_id: IdInPath) -> Response:
    """One ad."""
    return body.answer(ad_view(await services_of(request).catalog.get_ad(ad_id)))


async def _changed(services: Services, ad: Ad) -> Response:
    held = await acknowledged(services, ad.version)
    change = AdChange(
        ad=ad_view(ad),
        catalog_version=ad.version,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(change, held.status)
