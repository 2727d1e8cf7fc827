"""The overview: how much comes, what it earns, whether the model is right, and what changed."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from nicegui import ui
from starlette.requests import Request

from app.storage.statistics import PerformanceRow
from jobs.dashboard.charts import Chart, Line, by_hour, over_time
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.measured import History, Sample, percentile, rate
from jobs.dashboard.parts import Text, Tile, attribute, box, card, empty, grid, link
from jobs.dashboard.served import nothing_served, served
from jobs.dashboard.units import (
    NONE,
    ago,
    clock,
    count,
    decimal,
    lasting,
    milliseconds,
    money,
    per_second,
    percent,
    when,
)
from jobs.dashboard.words import Change, changes

_RECENT_S = 60.0
_DECISIONS = "/v1/decisions"
_REQUESTS = "adscent_requests_total"
_EVENTS = "adscent_events_total"
_CALIBRATED = (0.9, 1.1)
_CHANGES = 14
_QUIET = "No request since the dashboard began to look. It draws what comes from then on."


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/")
    def overview(request: Request) -> None:
        told = "What comes in, what it earns, and whether the model is right about it."
        with framed(desk, request.state.session, "/", "Overview", told) as page:
            _tiles(page)
            with grid():
                with card("Traffic", "Requests and stored events a second.", "half"):
                    _traffic(page)
                with card("Time to decide", "Of /v1/decisions, in milliseconds.", "half"):
                    _latency(page)
                with card("By the hour", "Spend of each hour, and its click rate.", "wide"):
                    _hours(page)
                with card("Serving now", kind="third"):
                    _serving(page)
                with card("What changed lately"):
                    page.follower.place(
                        lambda: changes(page.picture, _CHANGES), partial(_feed, page)
                    )


def _tiles(page: Page) -> None:
    with box("tiles"):
        names = ("Decisions", "Click rate", "Revenue", "Calibration", "p99", "Workers")
        tiles = {name: Tile(name) for name in names}

    def refresh() -> None:
        history = page.desk.readings.history
        _show_decisions(tiles["Decisions"], history)
        _show_earned(tiles["Click rate"], tiles["Revenue"], page)
        _show_calibration(tiles["Calibration"], page)
        _show_latency(tiles["p99"], history)
        _show_workers(tiles["Workers"], page)

    page.follower.add(refresh)


def _show_decisions(tile: Tile, history: History) -> None:
    span = history.recent(_RECENT_S)
    found = None if span is None else rate(*span, _REQUESTS, route=_DECISIONS)
    failed = None if span is None else _failing(*span)
    note = "" if failed is None else f"{percent(failed, 1)} refused or failed"
    tile.show(per_second(found), "/s", note or "last minute", "bad" if failed else "")


def _failing(first: Sample, last: Sample) -> float | None:
    """The share of decisions in the span that were answered with 5xx; None for none."""
    grown = rate(first, last, _REQUESTS, route=_DECISIONS)
    failed = sum(
        rate(first, last, _REQUESTS, route=_DECISIONS, status=status) or 0.0
        for status in last.by(_REQUESTS, "status")
        if status.startswith("5")
    )
    return failed / grown if grown and failed else None


def _show_earned(clicked: Tile, earned: Tile, page: Page) -> None:
    day = page.picture.hours.rows[-24:]
    shown, clicks = sum(row.impressions for row in day), sum(row.clicks for row in day)
    if not shown:
        clicked.show(NONE, "", "no impression yet")
        earned.show(NONE, "", "no impression yet")
        return
    spent = sum(row.spend_micros for row in day)
    clicked.show(percent(clicks / shown), "", f"24 h: {count(clicks)} of {count(shown)}")
    earned.show(money(spent), "", f"24 h: {money(1000 * spent / shown)} per thousand")


def _show_calibration(tile: Tile, page: Page) -> None:
    value, clicks = _window_calibration(page)
    if value is None:
        tile.show(NONE, "", "no click learned yet")
        return
    is_right = _CALIBRATED[0] <= value <= _CALIBRATED[1]
    tile.show(
        decimal(value), "", f"predicted / seen, {count(clicks)} clicks", "" if is_right else "warn"
    )


def _window_calibration(page: Page) -> tuple[float | None, float]:
    """Σ predicted / Σ clicked over the window that the gate judges."""
    served = page.picture.served
    window = () if served is None else served.manifest.window
    clicks = sum(one.clicks for one in window)
    return (sum(one.predicted for one in window) / clicks if clicks else None), clicks


def _show_latency(tile: Tile, history: History) -> None:
    span = history.recent(_RECENT_S)
    found = None if span is None else percentile(*span, 0.99)
    middle = None if span is None else percentile(*span, 0.5)
    tile.show(milliseconds(found), "ms", f"median {milliseconds(middle)} ms")


def _show_workers(tile: Tile, page: Page) -> None:
    found = page.picture.workers
    behind = len({one.catalog_version for one in found}) > 1
    hosts = len({one.host for one in found})
    note = "none serves: start `adscent serve`" if not found else f"on {hosts} host"
    note += "s" if hosts > 1 else ""
    tile.show(count(len(found)), "", note + (", catching up" if behind else ""))


def _traffic(page: Page) -> None:
    chart = Chart("Requests and events a second over the last half hour", none=_QUIET)

    def refresh() -> None:
        spans = page.desk.readings.history.spans
        lines = [
            Line(
                name,
                colour,
                [(last.at_s, rate(first, last, metric, **labels)) for first, last in spans],
                is_filled=name == "decisions",
            )
            for name, colour, metric, labels in (
                ("decisions", "blue", _REQUESTS, {"route": _DECISIONS}),
                ("impressions", "teal", _EVENTS, {"type": "impression", "outcome": "accepted"}),
                ("clicks", "orange", _EVENTS, {"type": "click", "outcome": "accepted"}),
            )
        ]
        chart.show(over_time(lines))

    page.follower.add(refresh)


def _latency(page: Page) -> None:
    chart = Chart("Median and 99 % of the time to decide over half an hour", none=_QUIET)

    def refresh() -> None:
        spans = page.desk.readings.history.spans
        wide = [(spans[max(at - 4, 0)][0], last) for at, (_, last) in enumerate(spans)]
        lines = [
            Line(
                name,
                colour,
                [(last.at_s, _ms(percentile(first, last, share))) for first, last in wide],
            )
            for name, colour, share in (("median", "blue", 0.5), ("99 %", "orange", 0.99))
        ]
        chart.show(over_time(lines))

    page.follower.add(refresh)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _hours(page: Page) -> None:
    def build(rows: list[PerformanceRow]) -> None:
        if not any(row.impressions for row in rows):
            empty(
                "No impression is counted yet. Send one: POST /v1/decisions, then its token to"
                " POST /v1/events. `adscent jobs` counts them every few seconds."
            )
            return
        hours = [(int(str(row.keys["hour"])) / 1000, row) for row in rows]
        spent = [(at, row.spend_micros / 1e6) for at, row in hours]
        clicked = [(at, None if row.ctr is None else 100 * row.ctr) for at, row in hours]
        Chart("Spend and click rate by the hour").show(
            by_hour(
                Line("spend", "teal", spent),
                Line("click rate, %", "orange", clicked, has_dots=True),
                *("spend", "%"),
            )
        )

    page.follower.place(lambda: page.picture.hours.rows, build)


def _serving(page: Page) -> None:
    """What is served; only what changes is built anew, so that a focused link stays."""

    def read() -> tuple[UUID, bool, bool] | None:
        found = page.picture.serving
        if found is None:
            return None
        return found.snapshot_id, found.is_pinned, found.head_id != found.snapshot_id

    def build(found: tuple[UUID, bool, bool] | None) -> None:
        if found is None:
            nothing_served()
            return
        snapshot_id, is_pinned, is_behind = found
        with box("acts"):
            served(snapshot_id, is_pinned)
        if is_pinned and is_behind:
            _told("Training goes on behind it; what it makes is not served while this is pinned.")

    page.follower.place(read, build)
    since, learned = _told(""), _told("")
    link("Snapshots, roll back →", "/snapshots", "small")

    def refresh() -> None:
        since.set_text(_since(page))
        learned.set_text(_learned(page))

    page.follower.add(refresh)


def _since(page: Page) -> str:
    picture = page.picture
    if not picture.promotions:
        return ""
    one = picture.promotions[0]
    at = f"{clock(one.promoted_ms)} ({ago(one.promoted_ms, picture.at_s)})"
    return f"Since {at}, by {one.reason}; training last moved {lasting(picture.lag.cursor_s)} ago."


def _learned(page: Page) -> str:
    if page.picture.served is None:
        return ""
    metrics = page.picture.served.manifest.metrics
    return (
        f"Knows {count(metrics.get('ad_values'))} ad values and"
        f" {count(metrics.get('user_values'))} user values;"
        f" indexes {count(metrics.get('indexed_ads'))} ads."
    )


def _told(text: str) -> Text:
    return Text(text, "small soft", tag="p")


def _feed(page: Page, found: list[Change]) -> None:
    if not found:
        empty("Nothing has changed yet.")
        return
    with attribute(box("feed", tag="ul"), aria_label="Changes, the newest first"):
        for one in found:
            with box(tag="li"):
                Text(when(one.at_ms, page.picture.at_s), tag="time")
                with box():
                    who = "" if one.who == "training" else f"{one.who} "
                    with box(f"dot {one.kind}"):
                        if one.target is None:
                            Text(who + one.what, tag="span")
                        else:
                            link(who + one.what, one.target)
                    if one.detail:
                        Text(one.detail, "under")
