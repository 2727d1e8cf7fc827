"""`/v1/users/{feature}/{value}`: a value of a user is erased; how far that has come."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from app.api import body
from app.api.authentication import Actor, needs
from app.api.moments import moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import ErasureView
from app.api.services import Services, services_of
from app.storage import erasures
from app.storage.erasures import Erasure
from app.storage.errors import DatabaseUnavailable
from models.tombstone import tombstone


class _Anything(PathConvertor):
    """The rest of an address, slashes and ends of lines included: a value may be any text."""

    regex = "(?s:.*)"


register_url_convertor("anything", _Anything())
router = APIRouter(prefix="/v1/users", tags=["users"], dependencies=[Depends(needs("admin"))])
_LOOK_EVERY_S = 0.02


@router.delete(
    "/{feature}/{value:anything}",
    **operation(
        summary="Erase a value of a user",
        scope="admin",
        answers={200: ErasureView, 202: ErasureView},
    ),
)
async def erase(request: Request, feature: str, value: str, actor: Actor) -> Response:
    """Treat the value as missing wherever it is met, from now on and in all that was stored.

    200 once no live worker serves or stores with it; 202 names those that may still. Stored events
    lose it soon after (`events_at`). There is no way back: only its hash is known.
    """
    services = services_of(request)
    meant = tombstone(services.encoder.schema, feature, value)
    given = (meant.feature, meant.hash, meant.missing)
    found = await erasures.erase(services.database, *given, actor)
    acknowledged, pending = await _known(services, found.version)
    return body.answer(_view(found, acknowledged, pending), 202 if pending else 200)


@router.get(
    "/{feature}/{value:anything}",
    **operation(
        summary="Read an erasure", scope="admin", answers={200: ErasureView}, faults=(404,)
    ),
)
async def get(request: Request, feature: str, value: str) -> Response:
    """How far an erasure has come; 404 for a value that was not erased."""
    services = services_of(request)
    meant = tombstone(services.encoder.schema, feature, value)
    found = await erasures.get(services.database, meant.hash)
    know, others = await erasures.knowing(services.database, found.version)
    return body.answer(_view(found, _texts(know), _texts(others)))


async def _known(services: Services, version: int) -> tuple[list[str], list[str]]:
    """Wait, at most `acknowledge_timeout_s`, until every worker has applied this erasure."""
    deadline = time.monotonic() + services.settings.acknowledge_timeout_s
    while True:
        # It is committed; losing the database now must not make the call look failed.
        try:
            know, others = await erasures.knowing(services.database, version)
        except DatabaseUnavailable:
            return [], ["unknown: the database stopped answering"]
        if not others or time.monotonic() >= deadline:
            return _texts(know), _texts(others)
        await asyncio.sleep(_LOOK_EVERY_S)


def _texts(ids: list[UUID]) -> list[str]:
    return [str(one) for one in ids]


def _view(found: Erasure, acknowledged: list[str], pending: list[str]) -> ErasureView:
    return ErasureView(
        feature=found.feature,
        hash=erasures.shown(found.hash),
        version=found.version,
        erased_at=moment(found.erased_ms),
        events=found.events,
        events_at=moment_or_none(found.events_ms),
        acknowledged=acknowledged,
        pending=pending,
    )
