"""Events: how many come, what is refused or set aside, and how far training is behind."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui
from starlette.requests import Request

from app.storage.quarantine import Quarantined
from jobs.dashboard.changing import release
from jobs.dashboard.charts import Chart, Line, bars, over_time
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.measured import Sample, growth, rate
from jobs.dashboard.parts import Button, Text, Tile, box, card, empty, grid
from jobs.dashboard.tables import Column, Table
from jobs.dashboard.units import NONE, count, lasting, moment, per_second, percent

_EVENTS = "adscent_events_total"
_RECENT_S = 60.0
_HALF_HOUR_S = 1800.0
_KINDS = (("impression", "blue"), ("click", "orange"), ("conversion", "teal"))
_QUIET = "No event since the dashboard began to look. It draws what comes from then on."
_BAD = ("rejected", "too_old")
_RULES = {
    "token": "one ad of one page was clicked too often",
    "address": "one address clicked too often",
    "ad": "an ad had too many clicks for its impressions",
}
_WHY = {
    "forged": "not sealed by this server",
    "expired": "older than its lifetime",
    "malformed": "not a token",
    "unknown_key": "sealed with a key that is gone",
}


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/events")
    def events(request: Request) -> None:
        told = "What comes in, what is refused or set aside, and how far training is behind."
        with framed(desk, request.state.session, "/events", "Events", told) as page:
            _tiles(page)
            with grid():
                with card("Stored", "Events a second, by type.", "half"):
                    _stored(page)
                with card("Not stored", "Duplicates and refusals a second.", "half"):
                    _refused(page)
                with card("Refused tokens", "Of the last half hour, by reason.", "half"):
                    page.follower.place(lambda: _reasons(page), _tokens)
                with card(
                    "Set aside",
                    "Clicks that a rule holds for suspicious. They are kept, but neither counted"
                    " nor learned, until someone releases them.",
                    "half",
                ):
                    _quarantine(page)


def _tiles(page: Page) -> None:
    with box("tiles"):
        names = ("Stored", "Duplicates", "Refused", "Set aside", "Training lag", "Open transaction")
        tiles = {name: Tile(name) for name in names}

    def refresh() -> None:
        span = page.desk.readings.history.recent(_RECENT_S)
        last = page.desk.readings.history.last
        if span is not None:
            accepted = rate(*span, _EVENTS, outcome="accepted")
            tiles["Stored"].show(per_second(accepted), "/s", "last minute")
            duplicates = rate(*span, _EVENTS, outcome="duplicate")
            tiles["Duplicates"].show(per_second(duplicates or 0.0), "/s", "harmless repeats")
            bad = sum(rate(*span, _EVENTS, outcome=one) or 0.0 for one in _BAD)
            all_of_them = (accepted or 0.0) + (duplicates or 0.0) + bad
            share = percent(bad / all_of_them, 1) if all_of_them else NONE
            tiles["Refused"].show(per_second(bad), "/s", f"{share} of all", "bad" if bad else "")
        held = sum(one.events for one in page.picture.quarantined)
        tiles["Set aside"].show(count(held), "", "events", "warn" if held else "")
        _show_lag(tiles["Training lag"], page)
        oldest = None if last is None else last.total("adscent_oldest_transaction_seconds")
        tiles["Open transaction"].show(
            lasting(oldest), "", "holds training back", "warn" if (oldest or 0) > 60 else ""
        )

    page.follower.add(refresh)


def _show_lag(tile: Tile, page: Page) -> None:
    lag, settings = page.picture.lag, page.desk.settings
    is_late = lag.horizon_s is not None and lag.horizon_s > 6 * settings.horizon_every_s + 10
    note = "`adscent jobs` records no horizon" if is_late else "since the last chunk"
    tile.show(lasting(lag.cursor_s), "", note, "warn" if is_late else "")


def _stored(page: Page) -> None:
    chart = Chart("Stored events a second over the last half hour, by type", none=_QUIET)

    def refresh() -> None:
        spans = page.desk.readings.history.spans
        lines = [
            Line(
                f"{kind}s",
                colour,
                [(b.at_s, rate(a, b, _EVENTS, type=kind, outcome="accepted")) for a, b in spans],
            )
            for kind, colour in _KINDS
        ]
        chart.show(over_time([one for one in lines if _is_known(one)] or lines[:1]))

    page.follower.add(refresh)


def _is_known(line: Line) -> bool:
    return any(value is not None for _, value in line.points)


def _refused(page: Page) -> None:
    chart = Chart("Duplicates and refused events a second over half an hour", none=_QUIET)

    def refresh() -> None:
        spans = page.desk.readings.history.spans
        lines = [
            Line(name, colour, [(b.at_s, _sum(a, b, outcomes)) for a, b in spans])
            for name, colour, outcomes in (
                ("duplicates", "grey", ("duplicate",)),
                ("refused", "orange", _BAD),
            )
        ]
        chart.show(over_time(lines))

    page.follower.add(refresh)


def _sum(first: Sample, last: Sample, outcomes: Sequence[str]) -> float:
    return sum(rate(first, last, _EVENTS, outcome=one) or 0.0 for one in outcomes)


def _reasons(page: Page) -> dict[str, float]:
    span = page.desk.readings.history.recent(_HALF_HOUR_S)
    found = {} if span is None else growth(*span, "adscent_tokens_refused_total", "reason")
    return {name: value for name, value in found.items() if value > 0}


def _tokens(found: dict[str, float]) -> None:
    if not found:
        empty("No token was refused in the last half hour.")
        return
    names = sorted(found, key=lambda name: -found[name])
    chart = Chart("Refused tokens by reason", "low")
    chart.show(
        bars([_plain(name) for name in names], {"refused": ("orange", [found[n] for n in names])})
    )
    for name in names:
        told = f"{_plain(name)}: {count(found[name])}, {_WHY.get(name, 'refused')}"
        Text(told, "small soft", tag="p")


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _quarantine(page: Page) -> None:
    """The table is kept while its figures grow: under a flood they do so all the time."""
    none = box()
    with none:
        empty("Nothing is set aside: no rule found anything suspicious.")
    with box() as some:
        rows = Table(_columns(page), "What is set aside, by rule", key=_key)

    def refresh() -> None:
        rows.show(page.picture.quarantined)
        none.set_visibility(not page.picture.quarantined)
        some.set_visibility(bool(page.picture.quarantined))

    page.follower.add(refresh)


def _key(one: Quarantined) -> tuple[str, str]:
    return one.rule, one.type


def _columns(page: Page) -> list[Column[Quarantined]]:
    return [
        Column("rule", _rule, of=_key),
        Column("type", lambda one: one.type),
        Column("events", lambda one: count(one.events), is_number=True),
        Column("last", lambda one: moment(one.last_ms), phone="full"),
        Column("", lambda one: _release(page, one), of=_key),
    ]


def _rule(one: Quarantined) -> None:
    Text(one.rule, tag="span")
    Text(_RULES.get(one.rule, ""), "under")


def _release(page: Page, one: Quarantined) -> None:
    def events() -> int:
        found = page.picture.quarantined
        return next((now.events for now in found if _key(now) == _key(one)), one.events)

    Button("Release …", lambda: release(page, one.rule, events()))
