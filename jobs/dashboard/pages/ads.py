"""The ads: searched, with their state, bid and what they brought today."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from nicegui import ui
from starlette.requests import Request

from app.storage.ad_search import FoundAd, ads_of, search_ads
from app.storage.engine import Database
from app.storage.errors import StorageError
from app.storage.statistics import HOUR_MS, PerformanceQuery, PerformanceRow, performance
from jobs.dashboard.changing import set_state
from jobs.dashboard.fields import Choice, Field
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.parts import (
    Button,
    Text,
    attribute,
    box,
    card,
    link,
    pill,
    state,
)
from jobs.dashboard.tables import Column, Table
from jobs.dashboard.units import bid, count, money, percent
from models.types import State

_SHOWN = 30
_DAY_MS = 24 * HOUR_MS
_EVERY_S = 3.0
_SELDOM = 5
_LABEL = "Ads, with the figures of the last 24 hours"
_STATES: Mapping[str, str] = {
    "": "any state",
    "active": "active",
    "paused": "paused",
    "retired": "retired",
}


@dataclass(frozen=True, slots=True)
class _Row:
    found: FoundAd
    day: PerformanceRow


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/ads")
    async def ads(request: Request, q: str = "", state: str = "") -> None:
        told = "Every ad of the catalog: find one, pause it, or ask why it is not shown."
        with framed(desk, request.state.session, "/ads", "Ads", told) as page:
            listing = _Listing(page, q[:200], state if state in _STATES else "")
            await listing.look()


class _Listing:
    """The search and what it finds; looked for again every few seconds."""

    def __init__(self, page: Page, text: str, state: str) -> None:
        self._page = page
        self._ids: list[int] = []
        self._looks = 0
        with attribute(box("search", tag="form"), role="search") as form:
            self._text = Field(
                *("Search", "id, title, campaign or advertiser"),
                value=text,
                kind="search",
                grows=True,
                changed=self._changed,
            )
            self._state = Choice("State", _STATES, state, changed=self._changed)
        form.on("submit.prevent", self.look)
        with card("Found", "Impressions, click rate and spend are of the last 24 hours."):
            self._nothing = Text("", "empty")
            self._table = Table(self._columns(), _LABEL, key=lambda row: row.found.ad.id)
            told = f"The first {_SHOWN} by id. Search to narrow them down."
            self._more = Text(told, "small soft more")
        ui.timer(_EVERY_S, self._look_again, immediate=False)

    def _changed(self) -> None:
        ui.timer(0.15, self.look, once=True)

    async def look(self) -> None:
        """Search, and show what was found."""
        if not self._page.is_live:
            return
        chosen: State | None = self._state.value or None  # type: ignore[assignment]  # of _STATES
        text = self._text.value.strip()
        await self._show(lambda database: search_ads(database, text, chosen, _SHOWN + 1))

    async def _look_again(self) -> None:
        """Show what is new of the ads that were found; now and then search again."""
        self._looks += 1
        if self._looks % _SELDOM == 0:
            await self.look()
        elif self._page.is_live and self._ids:
            ids = self._ids
            await self._show(lambda database: ads_of(database, ids))

    async def _show(self, read: Callable[[Database], Awaitable[list[FoundAd]]]) -> None:
        database = self._page.desk.database
        try:
            rows = await _with_statistics(database, await read(database))
            told = self._told_of(rows)
        except StorageError as error:
            rows, told = [], str(error)
        self._ids = [row.found.ad.id for row in rows]
        self._nothing.set_text(told)
        self._nothing.set_visibility(bool(told))
        self._more.set_visibility(len(rows) > _SHOWN)
        self._table.show(rows[:_SHOWN])

    def _told_of(self, rows: list[_Row]) -> str:
        """What stands there instead of rows."""
        if rows:
            return ""
        if self._text.value or self._state.value:
            return "No ad fits. Search for a part of its title, or for its id."
        return "There is no ad yet. `adscent ads import FILE.ndjson` loads some."

    def _columns(self) -> list[Column[_Row]]:
        return [
            Column("ad", _name, phone="full", of=lambda row: title_of(row.found)),
            Column("state", _state, of=lambda row: states_of(row.found)),
            Column("bid", lambda row: bid(row.found.ad.bid_micros, row.found.ad.bid_type), True),
            Column("impressions", lambda row: count(row.day.impressions), is_number=True),
            Column("click rate", lambda row: percent(row.day.ctr), is_number=True),
            Column("spend", lambda row: money(row.day.spend_micros), is_number=True),
            Column("", self._act, of=lambda row: row.found.ad.state),
        ]

    def _act(self, row: _Row) -> None:
        ad = row.found.ad
        if ad.state == "active":
            made = Button("Pause", lambda: set_state(self._page, ad.id, "paused"))
            attribute(made, aria_label=f"Pause ad {ad.id}")
        elif ad.state == "paused":
            made = Button("Resume", lambda: set_state(self._page, ad.id, "active"))
            attribute(made, aria_label=f"Resume ad {ad.id}")


async def _with_statistics(database: Database, found: list[FoundAd]) -> list[_Row]:
    """Each ad with its figures of the last day."""
    if not found:
        return []
    now_ms = time.time_ns() // 1_000_000
    query = PerformanceQuery(
        *(now_ms // HOUR_MS * HOUR_MS - _DAY_MS + HOUR_MS, now_ms + HOUR_MS),
        group_by=("ad",),
        ad_ids=[one.ad.id for one in found],
    )
    read = await performance(database, query)
    by_ad = {row.keys["ad"]: row for row in read.rows}
    return [_Row(one, by_ad.get(one.ad.id, PerformanceRow())) for one in found]


def _name(row: _Row) -> None:
    ad = row.found.ad
    link(title_of(row.found), f"/ads/{ad.id}")
    campaign = row.found.campaign_name or f"campaign {ad.campaign_id}"
    advertiser = row.found.advertiser_name or f"advertiser {ad.advertiser_id}"
    Text(f"ad {ad.id} · {campaign} · {advertiser}", "under")


def title_of(found: FoundAd) -> str:
    """What an ad is called: its title, or its id."""
    return found.ad.creative.get("title") or f"Ad {found.ad.id}"


def states_of(found: FoundAd) -> tuple[str, ...]:
    """The states of an ad and of what is above it."""
    return (found.ad.state, found.campaign_state, found.advertiser_state)


def _state(row: _Row) -> None:
    show_state(row.found)


def show_state(found: FoundAd) -> None:
    """An ad's state, and what above it holds it back."""
    state(found.ad.state)
    for what, above in (
        ("campaign", found.campaign_state),
        ("advertiser", found.advertiser_state),
    ):
        if above != "active":
            pill(f"{what} {above}", "warn")
