"""The newest few changes of the catalog, by one statement: how a pause reaches a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from app.storage.catalog_rows import ad_of, advertiser_of, campaign_of
from app.storage.engine import Database, at
from models.types import CatalogChanges, Placement

MOST = 100
"""More changes than these of one kind are read in parts, which takes several statements."""


def _ms_of(column: str) -> str:
    """A column's time in ms since 1970. The driver stores the first and last times as infinite."""
    return f"""
        floor(extract(epoch FROM CASE {column}
            WHEN '-infinity' THEN timestamptz '0001-01-01 00:00:00Z'
            WHEN 'infinity' THEN timestamptz '9999-12-31 23:59:59.999999Z'
            ELSE {column} END) * 1000)::bigint AS {column}_ms
    """


_TABLES = {
    "ads": f"""
        SELECT ads.*, campaigns.advertiser_id,
            {_ms_of("flight_start")}, {_ms_of("flight_end")}
        FROM ads JOIN campaigns ON campaigns.id = ads.campaign_id
        WHERE ads.version > $1 ORDER BY ads.version LIMIT {MOST + 1}
    """,  # noqa: S608 - a number of ours
    **{
        name: f"SELECT * FROM {name} WHERE version > $1"  # noqa: S608 - names of ours
        f" ORDER BY version LIMIT {MOST + 1}"
        for name in ("campaigns", "advertisers", "placements")
    },
}
_PARTS = ", ".join(
    f"(SELECT json_agg(to_jsonb(part)) FROM ({query}) AS part) AS {name}"  # noqa: S608 - ours
    for name, query in _TABLES.items()
)
# Where nothing is newer none of the parts is looked for: most polls end there.
_RECENT = f"""
SELECT version, {_PARTS} FROM catalog_version WHERE version > $1
UNION ALL
SELECT version, NULL, NULL, NULL, NULL FROM catalog_version WHERE version <= $1
"""  # noqa: S608 - ours


async def recent_changes(database: Database, version: int) -> CatalogChanges | None:
    """What changed after `version`, all of one moment; None where it is more than a little."""
    [row] = await database.line.fetch(_RECENT, version)
    found = {name: _rows(row[name]) for name in _TABLES}
    if any(len(rows) > MOST for rows in found.values()):
        return None
    return CatalogChanges(
        row["version"],
        tuple(map(advertiser_of, found["advertisers"])),
        tuple(map(campaign_of, found["campaigns"])),
        tuple(map(_ad_of, found["ads"])),
        tuple(
            Placement(one.name, one.floor_micros, tuple(one.house_ads), one.version)
            for one in found["placements"]
        ),
    )


def _rows(text: str | None) -> list[Any]:
    return [] if text is None else [SimpleNamespace(**one) for one in msgspec.json.decode(text)]


def _ad_of(row: Any) -> Any:
    for name in ("flight_start", "flight_end"):
        given_ms = getattr(row, f"{name}_ms")
        setattr(row, name, None if given_ms is None else at(given_ms))
    return ad_of(row)
