"""The frame of every page: skip link, navigation, theme, who is logged in, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from nicegui import ui
from nicegui.element import Element

from app.settings import Settings
from app.storage.engine import Database
from jobs.dashboard.calls import Calls
from jobs.dashboard.guard import login_for
from jobs.dashboard.parts import Button, Follower, Text, attribute, box, link, prose
from jobs.dashboard.readings import Picture, Readings
from jobs.dashboard.sessions import Session, Sessions
from jobs.dashboard.units import clock
from models.schema import Schema

PAGES = (
    ("Overview", "/"),
    ("Model", "/model"),
    ("Snapshots", "/snapshots"),
    ("Ads", "/ads"),
    ("Events", "/events"),
    ("Retrains", "/retrains"),
)
_THEMES: dict[str, tuple[bool | None, str]] = {
    "system": (None, "light"),
    "light": (False, "dark"),
    "dark": (True, "system"),
}
_LOOK_EVERY_S = 1.0
_READ = {"database", "reading"}
"""Faults with which what is shown is old."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What pages work with: made once for the process."""

    settings: Settings
    schema: Schema
    database: Database
    sessions: Sessions
    readings: Readings
    calls: Calls
    themes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """One page open in one browser; `ground`: what holds everything below the heading's frame."""

    desk: Desk
    session: Session
    follower: Follower
    ground: Element

    @property
    def is_live(self) -> bool:
        """Whether its session still is: nothing is read or shown for one that has ended."""
        return self.desk.sessions.is_live(self.session)

    @property
    def picture(self) -> Picture:
        """The newest reading."""
        return self.desk.readings.picture


@contextmanager
def framed(desk: Desk, session: Session, path: str, title: str, told: str) -> Iterator[Page]:
    """Build a page inside its frame; `told`: a sentence on what it is for."""
    ui.page_title(f"{title} · Adscent")
    content = attribute(box("content"), tabindex="-1")
    page = Page(desk, session, Follower(), content)
    _top(page, path)
    with content:
        with box("head"):
            with box():
                Text(title, tag="h1")
                Text(told, tag="p")
            _live(page)
        _banners(page)
        yield page
    ui.skip_link("Skip to the content", target=content)
    _follow(page)


def _top(page: Page, path: str) -> None:
    with ui.context.client.layout:
        top = box("top", tag="header")
    top.move(target_index=0)  # before the page, which is the document's main part
    with top, box():
        link("Adscent", "/", "brand")
        with attribute(box(tag="nav"), aria_label="Pages"):
            for name, target in PAGES:
                made = link(name, target)
                if target == path:
                    attribute(made, aria_current="page")
        with box("who"):
            _theme(page)
            Text(page.session.name, "name", tag="span")
            _log_out(page.session)


def _theme(page: Page) -> None:
    themes, key = page.desk.themes, str(page.session.key_id)
    dark = ui.dark_mode(_THEMES[themes.get(key, "system")][0])

    def turn() -> None:
        themes[key] = _THEMES[themes.get(key, "system")][1]
        dark.set_value(_THEMES[themes[key]][0])
        button.set_text(f"Theme: {themes[key]}")

    button = Button(f"Theme: {themes.get(key, 'system')}", turn)
    button.classes(replace="quiet")


def _log_out(session: Session) -> None:
    with attribute(box(tag="form"), method="post", action="/logout"):
        attribute(box(tag="input"), type="hidden", name="csrf", value=session.csrf)
        attribute(Text("Log out", "quiet", tag="button"), type="submit")


def _live(page: Page) -> None:
    label = Text("", "live")
    attribute(label, title="Everything on this page is read anew every two seconds. Times are UTC.")

    def refresh() -> None:
        at_s = page.picture.at_s
        is_stale = not _READ.isdisjoint(page.picture.faults)
        label.set_text(f"{'Not live since' if is_stale else 'Live'} {clock(1000 * at_s)} UTC")
        label.classes(replace="live stale" if is_stale else "live")

    page.follower.add(refresh)


def _banners(page: Page) -> None:
    def build(faults: tuple[str, ...]) -> None:
        for fault in faults:
            attribute(prose(fault, "banner"), role="alert")

    page.follower.place(lambda: tuple(page.picture.faults.values()), build)


def _follow(page: Page) -> None:
    """Look for news every second, until the session ends."""
    request = ui.context.client.request
    login = "/login" if request is None else login_for(request.url.path, request.url.query)

    def look() -> None:
        if not page.is_live:
            timer.deactivate()
            ui.navigate.to(login)
            return
        page.follower.refresh()

    timer = ui.timer(_LOOK_EVERY_S, look)
