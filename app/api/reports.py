"""`GET /v1/reports/performance`: what ads did and what they cost, as JSON or CSV."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from msgspec import UNSET
from pydantic import BeforeValidator

from app.api import body, lists, performance_csv
from app.api.authentication import needs
from app.api.examples import PERFORMANCE_CSV
from app.api.moments import EARLIEST_MS, LATEST_MS, milliseconds, moment, moment_or_none
from app.api.openapi import operation
from app.api.schemas import Moment
from app.api.services import services_of
from app.api.views import PerformanceReport, PerformanceView
from app.serving.tokens import MAX_PLACEMENT, PLACEMENT_NAME
from app.storage import statistics
from app.storage.partitions import DAY_MS
from app.storage.statistics import (
    HOUR_MS,
    Dimension,
    Key,
    Performance,
    PerformanceQuery,
    PerformanceRow,
    Ranked,
)
from models.types import MAX_ID

router = APIRouter(prefix="/v1/reports", tags=["reports"], dependencies=[Depends(needs("admin"))])

_MOST = 100
_CSV = "text/csv"
_UNTIL = "X-Adscent-Complete-Until"


def _split(given: list[str]) -> list[str]:
    """`a,b` is as good as two parameters."""
    return [part for text in given for part in text.split(",")]


GroupBy = Annotated[
    list[Dimension],
    BeforeValidator(_split),
    Query(max_length=7, description="One row for each of these; repeated, or separated by commas"),
]
Hour = Annotated[
    str | None,
    Query(
        max_length=40,
        description="A full hour, as 2026-11-22T10:00:00Z",
        json_schema_extra={"format": "date-time"},
    ),
]
Ids = Annotated[
    list[Annotated[int, Query(ge=1, le=MAX_ID)]],
    Query(max_length=_MOST, description="Only these; may be repeated"),
]
Snapshots = Annotated[list[UUID], Query(max_length=_MOST, description="Only these")]
Placements = Annotated[
    list[Annotated[str, Query(max_length=MAX_PLACEMENT, pattern=PLACEMENT_NAME)]],
    Query(max_length=_MOST, description="Only these; decisions without one have the empty name"),
]
Largest = Annotated[
    Ranked | None, Query(description="Largest first, one page only; without it by the groups")
]
Rows = Annotated[int, Query(ge=1, le=10_000, description="Most rows of one page")]
Cursor = Annotated[str | None, Query(max_length=600, description="`next_cursor` of a page before")]
Format = Annotated[
    Literal["json", "csv"] | None, Query(description="Instead of what Accept says; JSON if neither")
]


def _described() -> dict[str, Any]:
    """The answer is a document or a table; the table's cursor and horizon are in its headers."""
    described = operation(
        summary="Report performance", scope="admin", answers={200: PerformanceReport}
    )
    text = {"type": "string"}
    described["responses"][200] |= {
        "content": described["responses"][200]["content"]
        | {_CSV: {"schema": text, "example": PERFORMANCE_CSV}},
        "headers": {
            _UNTIL: {"description": "`complete_until`, beside a CSV", "schema": text},
            "Link": {"description": "The next page of a CSV, if there is one", "schema": text},
        },
    }
    return described


@router.get("/performance", **_described())
async def performance(
    request: Request,
    group_by: GroupBy = [],  # noqa: B006 - nobody changes it, and FastAPI describes it
    since: Hour = None,
    until: Hour = None,
    ad_id: Ids = [],  # noqa: B006
    campaign_id: Ids = [],  # noqa: B006
    advertiser_id: Ids = [],  # noqa: B006
    placement: Placements = [],  # noqa: B006
    snapshot_id: Snapshots = [],  # noqa: B006
    order_by: Largest = None,
    limit: Rows = 1000,
    cursor: Cursor = None,
    format: Format = None,  # noqa: A002 - the parameter's name
) -> Response:
    """Impressions, clicks, conversions and spend of the decisions made from `since` on, before
    `until`; the last 24 hours if neither is given.

    An event counts in the hour of its decision, so an hour grows while its late clicks come in.
    Quarantined events are left out. Every event acknowledged before `complete_until` is counted.
    """
    if order_by is not None and cursor is not None:
        remedy = "Leave out one of them."
        raise body.refuse("query.cursor", cursor, "a ranking has one page", remedy)
    groups: tuple[Dimension, ...] = tuple(dict.fromkeys(group_by))
    since_ms, until_ms = _range(since, until)
    query = PerformanceQuery(
        since_ms=since_ms,
        until_ms=until_ms,
        group_by=groups,
        ad_ids=ad_id,
        campaign_ids=campaign_id,
        advertiser_ids=advertiser_id,
        placements=placement,
        snapshot_ids=snapshot_id,
        ranked_by=order_by,
        limit=limit + 1,
        after=_after(cursor, groups),
    )
    found = await statistics.performance(services_of(request).database, query)
    rows, following = _page(found.rows, limit, is_ranked=order_by is not None)
    kept = Performance(rows, found.complete_until_ms)
    if _wants_csv(request, format):
        return _table(request, query, kept, following)
    return body.answer(_document(query, kept, following))


def _range(since: str | None, until: str | None) -> tuple[int, int]:
    """The hours asked for: by default the 24 that end with the present one."""
    present_ms = -(-time.time_ns() // 1_000_000 // HOUR_MS) * HOUR_MS
    given_until, given_since = _hour("until", until), _hour("since", since)
    until_ms = max(present_ms, given_since or 0) if given_until is None else given_until
    since_ms = until_ms - DAY_MS if given_since is None else given_since
    if since_ms > until_ms:
        raise body.refuse("query.since", since, "it is after until", "Exchange them.")
    return max(since_ms, EARLIEST_MS), until_ms


def _hour(name: str, given: str | None) -> int | None:
    if given is None:
        return None
    remedy = "Send a full hour, as 2026-11-22T10:00:00Z."
    try:
        found = milliseconds(msgspec.convert(given, Moment))
    except msgspec.ValidationError as error:
        limit = "it is no time with its offset from UTC"
        raise body.refuse(f"query.{name}", given, limit, remedy) from error
    if found is None or found % HOUR_MS or not EARLIEST_MS <= found <= LATEST_MS:
        raise body.refuse(f"query.{name}", given, "statistics are kept by the hour", remedy)
    return found


def _after(cursor: str | None, groups: tuple[Dimension, ...]) -> tuple[Key, ...] | None:
    parts = lists.after_parts(cursor)
    if parts is None:
        return None
    try:
        keys = tuple(_key(name, part) for name, part in zip(groups, parts, strict=True))
    except ValueError as error:
        raise lists.foreign(cursor) from error
    if not keys:
        raise lists.foreign(cursor)
    return keys


def _key(dimension: Dimension, text: str) -> Key:
    """A key from its text. Raises `ValueError`."""
    if dimension == "snapshot":
        return UUID(text)
    if dimension == "placement":
        if "\0" in text:
            raise ValueError(text)
        return text
    number = int(text)
    low, high = (EARLIEST_MS, LATEST_MS) if dimension in ("hour", "day") else (0, MAX_ID)
    if not low <= number <= high:
        raise ValueError(text)
    return number


def _page(
    found: list[PerformanceRow], limit: int, *, is_ranked: bool
) -> tuple[list[PerformanceRow], str | None]:
    kept = found[:limit]
    if len(found) <= limit or is_ranked:
        return kept, None
    return kept, lists.cursor_of([str(key) for key in kept[-1].keys.values()])


def _wants_csv(request: Request, given: str | None) -> bool:
    if given is not None:
        return given == "csv"
    accepted = request.headers.get("accept", "")
    kinds = [kind.partition(";")[0].strip().lower() for kind in accepted.split(",")]
    return _CSV in kinds and "application/json" not in kinds[: kinds.index(_CSV)]


def _table(
    request: Request, query: PerformanceQuery, found: Performance, following: str | None
) -> Response:
    headers = {}
    if found.complete_until_ms is not None:
        headers[_UNTIL] = performance_csv.time_text(found.complete_until_ms)
    if following is not None:
        url = request.url.include_query_params(cursor=following, format="csv")
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    text = performance_csv.table(query.group_by, found.rows)
    return Response(text, 200, headers, f"{_CSV}; charset=utf-8")


def _document(
    query: PerformanceQuery, found: Performance, following: str | None
) -> PerformanceReport:
    return PerformanceReport(
        since=moment(query.since_ms),
        until=moment(query.until_ms),
        complete_until=moment_or_none(found.complete_until_ms),
        group_by=list(query.group_by),
        items=[_view(row) for row in found.rows],
        next_cursor=following,
    )


def _view(row: PerformanceRow) -> PerformanceView:
    keys = {name: _shown(name, key) for name, key in row.keys.items()}
    return PerformanceView(
        hour=keys.get("hour", UNSET),
        day=keys.get("day", UNSET),
        ad_id=keys.get("ad", UNSET),
        campaign_id=keys.get("campaign", UNSET),
        advertiser_id=keys.get("advertiser", UNSET),
        placement=keys.get("placement", UNSET),
        snapshot_id=keys.get("snapshot", UNSET),
        impressions=row.impressions,
        clicks=row.clicks,
        ctr=row.ctr,
        conversions=row.conversions,
        conversion_value_micros=row.conversion_value_micros,
        closes=row.closes,
        spend_micros=row.spend_micros,
        ecpm_micros=row.ecpm_micros,
    )


def _shown(dimension: Dimension, key: Key) -> Any:
    """A time as such; None for what the catalog does not know."""
    if dimension in ("hour", "day"):
        return moment(int(str(key)))
    return None if key == 0 else key
