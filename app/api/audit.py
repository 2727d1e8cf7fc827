"""`GET /v1/audit`: who changed what, when, with what it was before and after."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from app.api import body
from app.api.authentication import needs
from app.api.lists import Cursor, Limit, after_id, page
from app.api.moments import moment
from app.api.openapi import operation
from app.api.services import services_of
from app.api.views import AuditList, AuditView
from app.storage import audit
from app.storage.audit import AuditRow

router = APIRouter(prefix="/v1/audit", tags=["operation"], dependencies=[Depends(needs("admin"))])

# PostgreSQL keeps no NUL in a text, and would refuse to compare with one.
_PRINTABLE = r"^[^\x00]+$"
Subject = Annotated[
    str | None,
    Query(min_length=1, max_length=200, pattern=_PRINTABLE, description="Such as `ad:42`"),
]
ActorOf = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        pattern=_PRINTABLE,
        description="Who did it: `key:` and the id of an API key, or a process such as `cli`",
    ),
]


@router.get("", **operation(summary="List changes", scope="admin", answers={200: AuditList}))
async def list_(
    request: Request,
    limit: Limit = 100,
    cursor: Cursor = None,
    subject: Subject = None,
    actor: ActorOf = None,
) -> Response:
    """Every act of an administrator, the newest first. Rows are never changed or deleted."""
    found = await audit.list_audit(
        services_of(request).database, limit + 1, after_id(cursor), subject, actor
    )
    kept, following = page(found, limit)
    return body.answer(AuditList(items=[_view(row) for row in kept], next_cursor=following))


def _view(row: AuditRow) -> AuditView:
    return AuditView(
        id=row.id,
        at=moment(row.at_ms),
        actor=row.actor,
        action=row.action,
        subject=row.subject,
        before=None if row.before is None else dict(row.before),
        after=None if row.after is None else dict(row.after),
    )
