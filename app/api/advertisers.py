"""`/v1/advertisers`: the advertisers of the catalog."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.acknowledgement import acknowledged
from app.api.ad_document import advertiser_of, advertiser_view
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, IdInPath, Limit, after_id, page
from app.api.openapi import operation
from app.api.schemas import AdvertiserBody, StatePatch
from app.api.services import Services, services_of
from app.api.views import AdvertiserChange, AdvertiserList, AdvertiserView
from models.types import Advertiser, State

router = APIRouter(
    prefix="/v1/advertisers", tags=["catalog"], dependencies=[Depends(needs("admin"))]
)
_put = msgspec.json.Decoder(AdvertiserBody)
_patch = msgspec.json.Decoder(StatePatch)
_CHANGED = {200: AdvertiserChange, 202: AdvertiserChange}


@router.put(
    "/{advertiser_id}",
    **operation(
        summary="Create or replace an advertiser",
        scope="admin",
        body=AdvertiserBody,
        answers=_CHANGED,
        faults=(409,),
        example={"name": "Shoes Ltd", "state": "active"},
    ),
)
async def put(request: Request, advertiser_id: IdInPath, actor: Actor) -> Response:
    """200 once every live worker has the change; 202 with those not heard from in time."""
    services = services_of(request)
    given = await body.read(request, _put, services.settings.max_body_bytes)
    advertiser = advertiser_of(given, advertiser_id)
    return await _changed(services, await services.catalog.put_advertiser(advertiser, actor))


@router.patch(
    "/{advertiser_id}",
    **operation(
        summary="Change an advertiser's state",
        scope="admin",
        body=StatePatch,
        answers=_CHANGED,
        faults=(404, 409),
        example={"state": "paused"},
    ),
)
async def patch(request: Request, advertiser_id: IdInPath, actor: Actor) -> Response:
    """A paused advertiser pauses all its ads. `retired` is final."""
    services = services_of(request)
    given = await body.read(request, _patch, services.settings.max_body_bytes)
    advertiser = await services.catalog.patch_advertiser(advertiser_id, actor, state=given.state)
    return await _changed(services, advertiser)


@router.get(
    "", **operation(summary="List advertisers", scope="admin", answers={200: AdvertiserList})
)
async def list_(
    request: Request, limit: Limit = 100, cursor: Cursor = None, state: State | None = None
) -> Response:
    """Advertisers by ascending id, one page."""
    found = await services_of(request).catalog.list_advertisers(
        limit + 1, after_id(cursor), state=state
    )
    kept, following = page(found, limit)
    items = [advertiser_view(advertiser) for advertiser in kept]
    return body.answer(AdvertiserList(items=items, next_cursor=following))


@router.get(
    "/{advertiser_id}",
    **operation(
        summary="Read an advertiser", scope="admin", answers={200: AdvertiserView}, faults=(404,)
    ),
)
async def get(request: Request, advertiser_id: IdInPath) -> Response:
    """One advertiser."""
    catalog = services_of(request).catalog
    return body.answer(advertiser_view(await catalog.get_advertiser(advertiser_id)))


async def _changed(services: Services, advertiser: Advertiser) -> Response:
    held = await acknowledged(services, advertiser.version)
    change = AdvertiserChange(
        advertiser=advertiser_view(advertiser),
        catalog_version=advertiser.version,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(change, held.status)
