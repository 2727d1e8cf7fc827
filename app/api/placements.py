"""`/v1/placements`: floors and house ads of the places on the publisher's pages."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response

from app.api import body
from app.api.acknowledgement import acknowledged
from app.api.authentication import Actor, needs
from app.api.lists import Cursor, Limit, after_name, page
from app.api.openapi import operation
from app.api.schemas import PlacementBody
from app.api.services import services_of
from app.api.views import PlacementChange, PlacementList, PlacementView
from app.serving.tokens import MAX_PLACEMENT, PLACEMENT_NAME
from app.storage import placements
from models.types import Placement

router = APIRouter(
    prefix="/v1/placements", tags=["catalog"], dependencies=[Depends(needs("admin"))]
)
_put = msgspec.json.Decoder(PlacementBody)

# `:path`, since a name may hold slashes; any other name is answered before a handler sees it.
Name = Annotated[str, Path(min_length=1, max_length=MAX_PLACEMENT, pattern=PLACEMENT_NAME)]


@router.put(
    "/{name:path}",
    **operation(
        summary="Create or replace a placement",
        scope="admin",
        body=PlacementBody,
        answers={200: PlacementChange, 202: PlacementChange},
        example={"floor_micros": 500_000, "house_ads": [42]},
    ),
)
async def put(request: Request, name: Name, actor: Actor) -> Response:
    """200 once every live worker has the change; 202 with those not heard from in time.

    What is left out is set to its default: `{}` takes floor and house ads away.
    """
    services = services_of(request)
    given = await body.read(request, _put, services.settings.max_body_bytes)
    wanted = Placement(name, given.floor_micros, tuple(dict.fromkeys(given.house_ads)))
    stored = await placements.put_placement(services.database, wanted, actor)
    held = await acknowledged(services, stored.version)
    change = PlacementChange(
        placement=_view(stored),
        catalog_version=stored.version,
        acknowledged=held.acknowledged,
        pending=held.pending,
    )
    return body.answer(change, held.status)


@router.get("", **operation(summary="List placements", scope="admin", answers={200: PlacementList}))
async def list_(request: Request, limit: Limit = 100, cursor: Cursor = None) -> Response:
    """Placements by name, one page."""
    database = services_of(request).database
    found = await placements.list_placements(database, limit + 1, after_name(cursor))
    kept, following = page(found, limit, "name")
    items = [_view(placement) for placement in kept]
    return body.answer(PlacementList(items=items, next_cursor=following))


@router.get(
    "/{name:path}",
    **operation(
        summary="Read a placement", scope="admin", answers={200: PlacementView}, faults=(404,)
    ),
)
async def get(request: Request, name: Name) -> Response:
    """One placement."""
    return body.answer(_view(await placements.get_placement(services_of(request).database, name)))


def _view(placement: Placement) -> PlacementView:
    return PlacementView(
        name=placement.name,
        floor_micros=placement.floor_micros,
        house_ads=list(placement.house_ads),
        version=placement.version,
    )
