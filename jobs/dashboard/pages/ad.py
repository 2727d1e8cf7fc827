"""One ad: its state and bid, what it brought, and why it is not shown to someone."""

from __future__ import annotations

import time

from nicegui import ui
from starlette.requests import Request

from app.storage.ad_search import FoundAd, find_ad
from app.storage.audit import list_audit
from app.storage.errors import StorageError
from app.storage.statistics import HOUR_MS, PerformanceQuery, PerformanceRow, performance
from jobs.dashboard.changing import set_bid, set_state
from jobs.dashboard.charts import Chart, Line, by_hour
from jobs.dashboard.explained import WhyNot
from jobs.dashboard.fields import Field
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.pages.ads import show_state, states_of, title_of
from jobs.dashboard.parts import (
    Button,
    Submit,
    Text,
    Tile,
    attribute,
    box,
    card,
    empty,
    facts,
    form,
    grid,
)
from jobs.dashboard.units import NONE, amount, bid, count, moment, money, percent
from jobs.dashboard.words import VERBS, difference
from models.targeting import render_targeting
from models.types import Ad, Schedule

_HOURS = 48
_CHANGES = 10
_EVERY_S = 2.0
_MICROS = 1_000_000


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/ads/{ad_id}")
    async def ad(request: Request, ad_id: int) -> None:
        session = request.state.session
        try:
            found = await find_ad(desk.database, ad_id)
        except StorageError as error:
            with framed(desk, session, "/ads", f"Ad {ad_id}", ""):
                empty(f"{error}. Search on Ads.")
            return
        told = f"Ad {ad_id} of {found.campaign_name or found.ad.campaign_id}"
        with framed(desk, session, "/ads", title_of(found), told) as page:
            one = _One(page, found)
            await one.look()


class _One:
    """The parts of the page, and the ad as it was last read."""

    def __init__(self, page: Page, found: FoundAd) -> None:
        self._page, self._found = page, found
        self._rows: list[PerformanceRow] = []
        self._told: list[tuple[str, str, str]] = []
        with card("State"):
            page.follower.place(lambda: states_of(self._found), lambda _: self._acts(self._found))
            page.follower.place(self._offer, lambda _: self._bidding(self._found.ad))
        self._tiles()
        with grid():
            with card("By the hour", "Impressions and clicks of the last two days.", "half"):
                page.follower.place(lambda: self._rows, _chart)
            with card("What it is", kind="half"):
                page.follower.place(lambda: self._found, lambda now: facts(_facts(now)))
            with card(
                "Why is it not shown?",
                "Decides now as for this visitor, and says what kept the ad from the page.",
            ):
                WhyNot(page, found.ad.id)
            with card("Changes"):
                page.follower.place(lambda: self._told, _changes)
        ui.timer(_EVERY_S, self.look, immediate=False)

    async def look(self) -> None:
        """Read the ad and its figures again."""
        if not self._page.is_live:
            return
        database, ad_id = self._page.desk.database, self._found.ad.id
        now_ms = time.time_ns() // 1_000_000
        first_ms = now_ms // HOUR_MS * HOUR_MS - (_HOURS - 1) * HOUR_MS
        query = PerformanceQuery(first_ms, now_ms + HOUR_MS, group_by=("hour",), ad_ids=[ad_id])
        try:
            self._found = await find_ad(database, ad_id)
            self._rows = (await performance(database, query)).rows
            rows = await list_audit(database, _CHANGES, subject=f"ad:{ad_id}")
        except StorageError:
            return  # the banner on top says so
        who = self._page.picture.who
        self._told = [
            (
                moment(row.at_ms),
                f"{who(row.actor)} {VERBS.get(row.action, row.action)} it",
                difference(row.before, row.after),
            )
            for row in rows
        ]
        self._page.follower.refresh()

    def _acts(self, found: FoundAd) -> None:
        page, ad = self._page, found.ad
        with box("acts"):
            show_state(found)
            if ad.state == "active":
                Button("Pause …", lambda: set_state(page, ad.id, "paused"), "strong")
            elif ad.state == "paused":
                Button("Resume …", lambda: set_state(page, ad.id, "active"), "strong")
            if ad.state != "retired":
                Button("Retire …", lambda: set_state(page, ad.id, "retired"))

    def _offer(self) -> tuple[bool, str, int]:
        """What the form of the bid depends on: what is typed outlasts all other changes."""
        ad = self._found.ad
        return ad.state == "retired", ad.bid_type, ad.bid_micros

    def _bidding(self, ad: Ad) -> None:
        if ad.state == "retired":
            Text("A retired ad cannot come back. Make a new one.", "small soft", tag="p")
            return
        field: Field
        with form(lambda: self._bid(field)):
            unit = "per click" if ad.bid_type == "cpc" else "per thousand"
            field = Field(f"Bid, {unit}", value=_typed(ad.bid_micros), kind="number")
            Submit("Change the bid …")

    def _bid(self, field: Field) -> None:
        given, ad = field.number(), self._found.ad
        if given is None or round(given * _MICROS) < 1:
            ui.notify("A bid is a number above 0, such as 0.35.", type="warning")
            return
        set_bid(self._page, ad.id, round(given * _MICROS), ad.bid_type, ad.bid_micros)

    def _tiles(self) -> None:
        with box("tiles"):
            names = ("Impressions", "Clicks", "Click rate", "Spend", "Paid per thousand", "Bid")
            tiles = {name: Tile(name) for name in names}

        def refresh() -> None:
            shown = sum(row.impressions for row in self._rows)
            clicks = sum(row.clicks for row in self._rows)
            spent = sum(row.spend_micros for row in self._rows)
            tiles["Impressions"].show(count(shown), "", "two days")
            tiles["Clicks"].show(count(clicks), "", "two days")
            tiles["Click rate"].show(percent(clicks / shown) if shown else NONE)
            tiles["Spend"].show(money(spent), "", "two days")
            tiles["Paid per thousand"].show(money(1000 * spent / shown) if shown else NONE)
            ad = self._found.ad
            kind = "per click" if ad.bid_type == "cpc" else "per thousand"
            tiles["Bid"].show(money(ad.bid_micros), "", kind)

        self._page.follower.add(refresh)


def _typed(micros: int) -> str:
    return amount(micros).replace(",", "")


def _chart(rows: list[PerformanceRow]) -> None:
    if not any(row.impressions for row in rows):
        empty("It was not shown in two days. “Why is it not shown?” tells what keeps it away.")
        return
    hours = [(int(str(row.keys["hour"])) / 1000, row) for row in rows]
    shown = Line("impressions", "blue", [(at, float(row.impressions)) for at, row in hours])
    clicks = Line("clicks", "orange", [(at, float(row.clicks)) for at, row in hours], has_dots=True)
    Chart("Impressions and clicks by the hour").show(
        by_hour(shown, clicks, "impressions", "clicks")
    )


def _facts(found: FoundAd) -> list[tuple[str, str]]:
    ad = found.ad
    features = ", ".join(f"{name}: {_joined(value)}" for name, value in ad.features.items())
    flight = (moment(ad.flight_start_ms), moment(ad.flight_end_ms))
    return [
        ("Id", str(ad.id)),
        ("Campaign", f"{found.campaign_name} ({ad.campaign_id})".strip()),
        ("Advertiser", f"{found.advertiser_name} ({ad.advertiser_id})".strip()),
        ("Bid", bid(ad.bid_micros, ad.bid_type)),
        ("Features", features or NONE),
        ("Targeting", _targeting(found)),
        ("Flight", " to ".join(flight) if any(one != NONE for one in flight) else "always"),
        ("Schedule", _schedule(ad.schedule)),
        ("Leads to", ad.creative.get("landing_url", NONE)),
        ("Catalog version", str(ad.version)),
    ]


def _schedule(schedule: Schedule | None) -> str:
    """On which days from when to when, by which clock."""
    if schedule is None:
        return "every hour"
    parts = [
        f"{', '.join(one.days)} {_minute(one.start_minute)}–{_minute(one.end_minute)}"
        for one in schedule.hours
    ]
    return f"{'; '.join(parts)} ({schedule.timezone})"


def _minute(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _targeting(found: FoundAd) -> str:
    """What has to hold, as it stands in the catalog."""
    parts = []
    for kind, clauses in render_targeting(found.ad.targeting).items():
        told = [f"{name} {_rule(rule)}" for one in clauses for name, rule in one.items()]
        if told:
            parts.append(f"{kind} of: {'; '.join(told)}")
    return " · ".join(parts) or "everyone"


def _rule(rule: object) -> str:
    if isinstance(rule, dict):
        return f"from {rule.get('min', '…')} to {rule.get('max', '…')}"
    return f"in {_joined(rule)}"


def _joined(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _changes(told: list[tuple[str, str, str]]) -> None:
    if not told:
        empty("It has not been changed since it was made.")
        return
    with attribute(box("feed", tag="ul"), aria_label="Changes, the newest first"):
        for at, what, detail in told:
            with box(tag="li"):
                Text(at, tag="time")
                with box():
                    Text(what, tag="span")
                    Text(detail, "under")
