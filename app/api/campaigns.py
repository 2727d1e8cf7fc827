"""`/v1/campaigns`: the campaigns of the catalog."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.acknowledgement import acknowledged
from app.api.ad_document import campaign_of, campaign_view
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, IdInPath, IdInQuery, Limit, after_id, page
from app.api.openapi import operation
from app.api.schemas import CampaignBody, StatePatch
from app.api.services import Services, services_of
from app.api.views import CampaignChange, CampaignList, CampaignView
from models.types import Campaign, State

router = APIRouter(prefix="/v1/campaigns", tags=["catalog"], dependencies=[Depends(needs("admin"))])
_put = msgspec.json.Decoder(CampaignBody)
_patch = msgspec.json.Decoder(StatePatch)
_CHANGED = {200: CampaignChange, 202: CampaignChange}


@router.put(
    "/{campaign_id}",
    **operation(
        summary="Create or replace a campaign",
        scope="admin",
        body=CampaignBody,
        answers=_CHANGED,
        faults=(409,),
        example={"advertiser_id": 3, "name": "Autumn", "state": "active"},
    ),
)
async def put(request: Request, campaign_id: IdInPath, actor: Actor) -> Response:
    """200 once every live worker has the change; 202 with those not heard from in time."""
    services = services_of(request)
    given = await body.read(request, _put, services.settings.max_body_bytes)
    campaign = campaign_of(given, campaign_id)
    return await _changed(services, await services.catalog.put_campaign(campaign, actor))


@router.patch(
    "/{campaign_id}",
    **operation(
        summary="Change a campaign's state",
        scope="admin",
        body=StatePatch,
        answers=_CHANGED,
        faults=(404, 409),
        example={"state": "paused"},
    ),
)
async def patch(request: Request, campaign_id: IdInPath, actor: Actor) -> Response:
    """A paused campaign pauses all its ads. `retired` is final."""
    services = services_of(request)
    given = await body.read(request, _patch, services.settings.max_body_bytes)
    campaign = await services.catalog.patch_campaign(campaign_id, actor, state=given.state)
    return await _changed(services, campaign)


@router.get("", **operation(summary="List campaigns", scope="admin", answers={200: CampaignList}))
async def list_(
    request: Request,
    limit: Limit = 100,
    cursor: Cursor = None,
    state: State | None = None,
    advertiser_id: IdInQuery = None,
) -> Response:
    """Campaigns by ascending id, one page."""
    found = await services_of(request).catalog.list_campaigns(
        limit + 1, after_id(cursor), state=state, advertiser_id=advertiser_id
    )
    kept, following = page(found, limit)
    items = [campaign_view(campaign) for campaign in kept]
    return body.answer(CampaignList(items=items, next_cursor=following))


@router.get(
    "/{campaign_id}",
    **operation(
        summary="Read a campaign", scope="admin", answers={200: CampaignView}, faults=(404,)
    ),
)
async def get(request: Request, campaign_id: IdInPath) -> Response:
    """One campaign."""
    catalog = services_of(request).catalog
    return body.answer(campaign_view(await catalog.get_campaign(campaign_id)))


async def _changed(services: Services, campaign: Campaign) -> Response:
    held = await acknowledged(services, campaign.version)
    change = CampaignChange(
        campaign=campaign_view(campaign),
        catalog_version=campaign.version,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(change, held.status)
