"""`adscent ads import`: a file of ads, campaigns and advertisers, all of it or nothing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from app.api.ad_document import ad_of, advertiser_of, campaign_of
from app.api.body import explain
from app.api.schemas import AdBody, AdvertiserBody, Body, CampaignBody
from app.commands.errors import ImportInvalid
from app.commands.session import with_database
from app.errors import FieldError, RequestFault, shown
from app.settings import Settings
from app.storage.catalog import Catalog
from app.storage.engine import Database
from models.errors import InvalidInput
from models.features import Encoder, load_schema
from models.types import Ad, Advertiser, Campaign

_ACTOR = "cli:ads import"
_Row = TypeVar("_Row", Ad, Campaign, Advertiser)


class CampaignLine(Body, frozen=True):
    """A line that holds a campaign."""

    campaign: CampaignBody


class AdvertiserLine(Body, frozen=True):
    """A line that holds an advertiser."""

    advertiser: AdvertiserBody


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """The rows of a file, by kind and id, each with the number of its line."""

    ads: dict[int, tuple[int, Ad]] = field(default_factory=dict)
    campaigns: dict[int, tuple[int, Campaign]] = field(default_factory=dict)
    advertisers: dict[int, tuple[int, Advertiser]] = field(default_factory=dict)


def import_file(settings: Settings, path: Path) -> CatalogFile:
    """Import a file in one transaction, as one version of the catalog.

    Raises `ImportInvalid` naming every line at fault; then nothing was written.
    """
    encoder = Encoder(load_schema(settings.features))
    with path.open("rb") as lines:
        read = parse(lines, encoder)
    with_database(settings, lambda database: _store(database, read))
    return read


def parse(lines: Iterable[bytes], encoder: Encoder) -> CatalogFile:
    """Read and check every line. Raises `ImportInvalid` with all mistakes, not only the first."""
    read = CatalogFile()
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            faults += _add(read, number, line, encoder)
    if faults:
        raise ImportInvalid(faults)
    return read


def _add(read: CatalogFile, number: int, line: bytes, encoder: Encoder) -> list[str]:
    kind = _kind(line)
    try:
        parsed = msgspec.json.decode(line, type=kind)
        return _keep(read, number, parsed, encoder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [_described(number, explain(error, line, kind))]
    except RequestFault as error:
        return [_described(number, fault) for fault in error.errors]
    except InvalidInput as error:
        return [f"line {number}: {error}"]


def _kind(line: bytes) -> type[AdBody | CampaignLine | AdvertiserLine]:
    try:
        loose = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return AdBody
    if isinstance(loose, dict) and "campaign" in loose:
        return CampaignLine
    return AdvertiserLine if isinstance(loose, dict) and "advertiser" in loose else AdBody


def _keep(
    read: CatalogFile,
    number: int,
    parsed: AdBody | CampaignLine | AdvertiserLine,
    encoder: Encoder,
) -> list[str]:
    if isinstance(parsed, AdBody):
        return _keep_row(read.ads, number, ad_of(parsed, encoder))
    if isinstance(parsed, CampaignLine):
        return _keep_row(read.campaigns, number, campaign_of(parsed.campaign))
    return _keep_row(read.advertisers, number, advertiser_of(parsed.advertiser))


def _keep_row(rows: dict[int, tuple[int, _Row]], number: int, row: _Row) -> list[str]:
    if row.id in rows:
        first = rows[row.id][0]
        return [f"line {number}: id {row.id} stands in line {first} already; keep one of them"]
    rows[row.id] = (number, row)
    return []


def _described(number: int, fault: FieldError) -> str:
    given = "" if fault.value is None else f" (given: {fault.value!r})"
    return f"line {number}: {fault.field}{given}: {fault.limit}. {fault.remedy}"


async def _store(database: Database, read: CatalogFile) -> int:
    catalog = Catalog(database)
    stored = await catalog.changes_since(0)
    faults = [
        *_orphans(read.ads, "campaign_id", {*read.campaigns, *_ids(stored.campaigns)}),
        *_orphans(read.campaigns, "advertiser_id", {*read.advertisers, *_ids(stored.advertisers)}),
        *_revived(read.ads, "ad", stored.ads),
        *_revived(read.campaigns, "campaign", stored.campaigns),
        *_revived(read.advertisers, "advertiser", stored.advertisers),
    ]
    if faults:
        raise ImportInvalid([_line(number, text) for number, text in sorted(faults)])
    return await catalog.import_catalog(
        [row for _, row in read.advertisers.values()],
        [row for _, row in read.campaigns.values()],
        [row for _, row in read.ads.values()],
        _ACTOR,
    )


def _line(number: int, text: str) -> str:
    return f"line {number}: {text}"


def _ids(rows: Iterable[Ad | Campaign | Advertiser]) -> set[int]:
    return {row.id for row in rows}


def _orphans(
    rows: dict[int, tuple[int, _Row]], key: str, known: Container[int]
) -> Iterator[tuple[int, str]]:
    """Line and fault of the rows whose parent is neither in the file nor in the catalog."""
    kind = key.removesuffix("_id")
    for number, row in rows.values():
        parent: int = getattr(row, key)
        if parent not in known:
            yield (
                number,
                f"{key} (given: {shown(parent)}): there is no such {kind}, here or in the catalog."
                f' Add a line {{"{kind}": {{"id": {parent}, …}}}}.',
            )


def _revived(
    rows: dict[int, tuple[int, _Row]], kind: str, stored: Iterable[_Row]
) -> Iterator[tuple[int, str]]:
    """Line and fault of the rows that would bring back what is retired in the catalog."""
    retired = {row.id for row in stored if row.state == "retired"}
    for number, row in rows.values():
        if row.id in retired and row.state != "retired":
            yield (
                number,
                f"state (given: {row.state!r}): {kind} {row.id} is retired in the catalog, which is"
                f' final. Give the {kind} a new id, or "state": "retired".',
            )
