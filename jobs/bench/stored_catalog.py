"""A whole catalog into an empty database by COPY: an import keeps an audit, and takes minutes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from app.storage.catalog_rows import ad_row, advertiser_row, campaign_row
from app.storage.engine import Database
from models.types import Ad, Advertiser, Campaign

_JSON = ("features", "targeting", "creative")


async def store(
    database: Database,
    advertisers: Sequence[Advertiser],
    campaigns: Sequence[Campaign],
    ads: Sequence[Ad],
) -> None:
    """Write all of these as one change of the catalog, without an audit."""
    async with database.session(command_timeout=None) as connection, connection.transaction():
        version = await connection.fetchval(
            "UPDATE catalog_version SET version = version + 1 RETURNING version"
        )
        stamp = {"version": version}
        await _copy(connection, "advertisers", map(advertiser_row, advertisers), stamp)
        await _copy(connection, "campaigns", map(campaign_row, campaigns), stamp)
        stamp["features_version"] = version
        await _copy(connection, "ads", map(_ad_row, ads), stamp)


def _ad_row(ad: Ad) -> dict[str, Any]:
    row = ad_row(ad)
    return row | {name: msgspec.json.encode(row[name]).decode() for name in _JSON}


async def _copy(
    connection: Any, table: str, rows: Iterable[dict[str, Any]], stamp: Mapping[str, int]
) -> None:
    records = [{**row, **stamp} for row in rows]
    if records:
        columns = list(records[0])
        await connection.copy_records_to_table(
            table, columns=columns, records=[tuple(row.values()) for row in records]
        )
