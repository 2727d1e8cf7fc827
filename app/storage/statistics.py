"""Statistics of impressions, clicks, conversions and spend, as `app.storage.counting` keeps them.

An event counts in the hour of its *decision*, whenever it comes: so the clicks of an hour are those
on its impressions, and an hour still grows while late events come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import sqlalchemy as sa

from app.storage.engine import Database, at, maybe, ms_of
from app.storage.tables import ad_statistics, ads, campaigns, statistics_cursor

Dimension = Literal["hour", "day", "ad", "campaign", "advertiser", "placement", "snapshot"]
Ranked = Literal["impressions", "clicks", "conversions", "conversion_value_micros", "spend_micros"]
Key = int | str | UUID
"""Of a time: milliseconds since 1970; of what the catalog does not know: 0."""

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class PerformanceQuery:
    """Statistics of the hours `since_ms` ≤ hour < `until_ms`, one row for each group.

    `group_by`: distinct dimensions, none for one row of everything. Filters take what is in them,
    empty ones anything. Rows come in the order of their keys, or with `ranked_by` the largest
    first. `after`: the keys of the last row of the page before, not together with `ranked_by`.
    """

    since_ms: int
    until_ms: int
    group_by: tuple[Dimension, ...] = ()
    ad_ids: Sequence[int] = ()
    campaign_ids: Sequence[int] = ()
    advertiser_ids: Sequence[int] = ()
    placements: Sequence[str] = ()
    snapshot_ids: Sequence[UUID] = ()
    ranked_by: Ranked | None = None
    limit: int = 1000
    after: tuple[Key, ...] | None = None


@dataclass(frozen=True, slots=True)
class PerformanceRow:
    """The figures of one group; `keys` are in the order of `group_by`, hours and days by their
    start. `spend_thousandths`: exact, in thousandths of a micro."""

    keys: Mapping[Dimension, Key] = field(default_factory=dict)
    impressions: int = 0
    clicks: int = 0
    conversions: int = 0
    closes: int = 0
    conversion_value_micros: int = 0
    spend_thousandths: int = 0

    @property
    def ctr(self) -> float | None:
        """Clicks by impressions; None without any impression."""
        return self.clicks / self.impressions if self.impressions else None

    @property
    def spend_micros(self) -> int:
        """Spend, rounded half up to a micro."""
        return _rounded(self.spend_thousandths, 1000)

    @property
    def ecpm_micros(self) -> int | None:
        """Spend on a thousand impressions, rounded half up; None without any impression."""
        return _rounded(self.spend_thousandths, self.impressions) if self.impressions else None


@dataclass(frozen=True, slots=True)
class Performance:
    """The rows, and until when they are complete: every event acknowledged before is counted.

    `complete_until_ms` is None before the first count.
    """

    rows: list[PerformanceRow]
    complete_until_ms: int | None


async def performance(database: Database, query: PerformanceQuery) -> Performance:
    """The statistics that a query asks for. Raises `DatabaseUnavailable`."""
    async with database.read() as connection:
        found = (await connection.execute(_selected(query))).all()
        until = await connection.scalar(sa.select(statistics_cursor.c.complete_until))
    return Performance([_row(query.group_by, row) for row in found], maybe(ms_of, until))


_T = ad_statistics.c
_CAMPAIGN = sa.func.coalesce(ads.c.campaign_id, 0)
_ADVERTISER = sa.func.coalesce(campaigns.c.advertiser_id, 0)
_KEYS: Mapping[Dimension, sa.ColumnElement[Any]] = {
    "hour": _T.hour,
    "day": sa.func.date_trunc(sa.literal_column("'day'"), _T.hour, sa.literal_column("'UTC'")),
    "ad": _T.ad_id,
    "campaign": _CAMPAIGN,
    "advertiser": _ADVERTISER,
    "placement": _T.placement,
    "snapshot": _T.snapshot_id,
}
_COUNTS = (
    *(_T.impressions, _T.clicks, _T.conversions, _T.closes),
    *(_T.conversion_value_micros, _T.spend_thousandths),
)


def _selected(query: PerformanceQuery) -> sa.Select[Any]:
    keys = [_KEYS[name] for name in query.group_by]
    sums = [sa.func.coalesce(sa.func.sum(one), 0).label(one.name) for one in _COUNTS]
    select = sa.select(*(key.label(f"key_{n}") for n, key in enumerate(keys)), *sums)
    select = select.select_from(_joined(query)).where(
        _T.hour >= at(query.since_ms), _T.hour < at(query.until_ms), *_filters(query)
    )
    if keys:
        select = select.group_by(*keys)
    if query.after is not None:
        after = [_value(name, key) for name, key in zip(query.group_by, query.after, strict=True)]
        select = select.where(sa.tuple_(*keys) > sa.tuple_(*after))
    if query.ranked_by is not None:
        ranked = query.ranked_by.replace("spend_micros", "spend_thousandths")
        select = select.order_by(sa.desc(sa.text(ranked)))
    return select.order_by(*keys).limit(query.limit)


def _joined(query: PerformanceQuery) -> sa.FromClause:
    """The statistics, with the catalog beside them where the query is about it."""
    of_advertiser = "advertiser" in query.group_by or bool(query.advertiser_ids)
    of_campaign = "campaign" in query.group_by or bool(query.campaign_ids)
    joined: sa.FromClause = ad_statistics
    if of_campaign or of_advertiser:
        joined = joined.outerjoin(ads, ads.c.id == _T.ad_id)
    if of_advertiser:
        joined = joined.outerjoin(campaigns, campaigns.c.id == ads.c.campaign_id)
    return joined


def _filters(query: PerformanceQuery) -> list[sa.ColumnElement[bool]]:
    wanted: list[tuple[sa.ColumnElement[Any], Sequence[Any]]] = [
        (_T.ad_id, query.ad_ids),
        (ads.c.campaign_id, query.campaign_ids),
        (campaigns.c.advertiser_id, query.advertiser_ids),
        (_T.placement, query.placements),
        (_T.snapshot_id, query.snapshot_ids),
    ]
    return [column.in_(values) for column, values in wanted if values]


def _value(name: Dimension, key: Key) -> sa.ColumnElement[Any]:
    value = at(int(str(key))) if name in ("hour", "day") else key
    return sa.literal(value, _KEYS[name].type if name != "day" else _T.hour.type)


def _row(group_by: Sequence[Dimension], row: Any) -> PerformanceRow:
    keys = {
        name: ms_of(row[n]) if name in ("hour", "day") else row[n]
        for n, name in enumerate(group_by)
    }
    return PerformanceRow(keys, *(int(count) for count in row[len(group_by) :]))


def _rounded(amount: int, unit: int) -> int:
    return (2 * amount + unit) // (2 * unit)
