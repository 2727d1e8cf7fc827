"""`GET /openapi.json`: the description of this API, for any key."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from app.api import body
from app.api.authentication import needs

router = APIRouter()


@router.get("/openapi.json", include_in_schema=False, dependencies=[Depends(needs(None))])
async def document(request: Request) -> Response:
    """The OpenAPI document."""
    return body.answer(request.app.openapi())
