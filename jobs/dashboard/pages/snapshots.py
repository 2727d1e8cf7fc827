"""Snapshots: which served when, the verdict of each, and going back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from nicegui import ui
from starlette.requests import Request

from app.storage.serving_history import Period
from app.storage.snapshots import Promotion, Serving, StoredSnapshot
from jobs.dashboard.changing import pin, roll_back, unpin
from jobs.dashboard.charts import Chart, Line, over_time
from jobs.dashboard.compared import show_comparisons
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.parts import (
    Button,
    Text,
    attribute,
    box,
    card,
    empty,
    link,
    pill,
    state,
)
from jobs.dashboard.served import nothing_served, served
from jobs.dashboard.tables import Column, Growing, table
from jobs.dashboard.units import ago, count, decimal, moment, percent, short, when

_STEP = 15


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the list; what it says of serving is part of what makes it new."""

    stored: StoredSnapshot
    is_served: bool
    is_pinned: bool


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/snapshots")
    def snapshots(request: Request) -> None:
        told = "What training made, what the gate said, and which snapshot served when."
        with framed(desk, request.state.session, "/snapshots", "Snapshots", told) as page:
            with card("Serving"):
                _serving(page)
            with card(
                "Beside it",
                "A canary answers a share of the requests, a shadow none; both are measured on the"
                " same impressions as what serves.",
            ):
                show_comparisons(page)
            with card(
                "Which served when", "Each step up is a newer snapshot, each step down a return."
            ):
                _timeline(page)
            with card("All snapshots", "The newest first. Open one for its checks."):
                Growing(page.follower, lambda: _rows(page), _STEP).place(_listed)


def _serving(page: Page) -> None:
    page.follower.place(lambda: page.picture.serving is None, _nothing)
    with box("acts"):
        page.follower.place(lambda: _told_of(page.picture.serving), _what_serves, "acts")
        _buttons(page)
    page.follower.place(lambda: _waiting(page.picture.serving), _newest)
    since = Text("", "small soft", tag="p")

    def refresh() -> None:
        picture = page.picture
        if picture.promotions:
            one = picture.promotions[0]
            who = "" if one.actor == one.reason else f" of {picture.who(one.actor)}"
            at = f"{moment(one.promoted_ms)} ({ago(one.promoted_ms, picture.at_s)})"
            since.set_text(f"Since {at}, by {one.reason}{who}.")

    page.follower.add(refresh)


def _nothing(is_nothing: bool) -> None:
    if is_nothing:
        nothing_served()


def _told_of(serving: Serving | None) -> tuple[UUID, bool] | None:
    return None if serving is None else (serving.snapshot_id, serving.is_pinned)


def _what_serves(found: tuple[UUID, bool] | None) -> None:
    if found is not None:
        served(*found)


def _buttons(page: Page) -> None:
    """Made once: a training run moves what serves every few seconds, under the pointer."""

    def is_pinned() -> bool:
        return page.picture.serving is not None and page.picture.serving.is_pinned

    back = Button("Roll back …", lambda: roll_back(page), "danger")
    keep = Button("", lambda: unpin(page) if is_pinned() else pin(page))

    def refresh() -> None:
        keep.set_text("Let new ones serve …" if is_pinned() else "Pin …")
        for one in (back, keep):
            one.set_visibility(page.picture.serving is not None)

    page.follower.add(refresh)


def _waiting(serving: Serving | None) -> UUID | None:
    """The newest snapshot, where it does not serve."""
    if serving is None or serving.head_id == serving.snapshot_id:
        return None
    return serving.head_id


def _newest(head_id: UUID | None) -> None:
    if head_id is not None:
        with box("small soft"):
            Text("Newer ones wait; training goes on from ", tag="span")
            link(short(head_id), f"/snapshots/{head_id}", "mono")


def _timeline(page: Page) -> None:
    chart = Chart("Which snapshot served when", "low")

    def refresh() -> None:
        promotions = page.picture.promotions
        if promotions:
            chart.show(
                _steps(promotions, page.picture.at_s), f"now {short(promotions[0].snapshot_id)}"
            )

    page.follower.add(refresh)
    page.follower.place(lambda: page.picture.history, partial(_history, page))


def _steps(promotions: Sequence[Promotion], now_s: float) -> dict[str, object]:
    """A step line: the order of the snapshots' making, over the time that they served."""
    order = {one: at for at, one in enumerate(sorted({p.snapshot_id for p in promotions}), 1)}
    points = [(p.promoted_ms / 1000, float(order[p.snapshot_id])) for p in reversed(promotions)]
    points.append((max(now_s // 10 * 10, points[-1][0]), points[-1][1]))
    line = Line("order of making", "blue", points, is_stepped=True, is_filled=True)
    options = over_time([line], low=None)
    options["yAxis"]["show"] = False
    options["tooltip"]["show"] = False
    options["grid"] |= {"top": 10}
    return options


def _history(page: Page, periods: Sequence[Period]) -> None:
    with box(tag="details"):
        Text("Every change of what answers", "small soft", tag="summary")
        columns: list[Column[Period]] = [
            Column("from", lambda one: moment(one.from_ms), phone="full"),
            Column("answers", _answers),
            Column("what happened", lambda one: one.action.replace("_", " ")),
            Column("by", lambda one: page.picture.who(one.actor)),
            Column("why", lambda one: one.reason, phone="full"),
        ]
        table(columns, periods, "What answered when, the newest first")


def _answers(one: Period) -> None:
    link(short(one.snapshot_id), f"/snapshots/{one.snapshot_id}", "mono")
    if one.is_pinned:
        pill("pinned", "warn")
    if one.canary_id is not None:
        Text(f"{percent(one.share, 0)} by {short(one.canary_id)}", "under")


def _rows(page: Page) -> list[_Row]:
    serving = page.picture.serving
    found = []
    for stored in page.picture.snapshots:
        is_served = serving is not None and serving.snapshot_id == stored.manifest.id
        found.append(_Row(stored, is_served, is_served and bool(serving and serving.is_pinned)))
    return found


def _listed(rows: Sequence[_Row]) -> None:
    if not rows:
        empty("No snapshot yet. `adscent jobs` makes the first one when it starts.")
        return
    table(
        [
            Column("snapshot", _name),
            Column("verdict", _verdict),
            Column("events", lambda row: count(_metric(row, "events")), is_number=True),
            Column("log loss", lambda row: decimal(_metric(row, "log_loss"), 4), is_number=True),
            Column("vs incumbent", _gain, is_number=True),
            Column("calibration", lambda row: decimal(_metric(row, "calibration")), is_number=True),
            Column(
                "largest norm",
                lambda row: decimal(_metric(row, "largest_raw_ratio")),
                is_number=True,
            ),
            Column("reasons", _reasons, phone="full"),
        ],
        rows,
        "Snapshots",
    )


def _name(row: _Row) -> None:
    manifest = row.stored.manifest
    link(short(manifest.id), f"/snapshots/{manifest.id}", "mono")
    at = manifest.created_ms
    attribute(Text(when(at, time.time()), "under"), title=moment(at))


def _verdict(row: _Row) -> None:
    with box("acts"):
        state(row.stored.manifest.verdict.result)
        if row.is_served:
            pill("serving", "blue")
        if row.is_pinned:
            pill("pinned", "warn")
        if row.stored.expired_ms is not None:
            pill("files gone")


def _metric(row: _Row, name: str) -> float | None:
    manifest = row.stored.manifest
    return None if manifest.parent is None else manifest.metrics.get(name)


def _gain(row: _Row) -> str:
    """Log loss less that of the incumbent on the same events; below 0 is better."""
    ours, theirs = _metric(row, "log_loss"), _metric(row, "log_loss_incumbent")
    return "–" if ours is None or theirs is None else f"{ours - theirs:+.4f}"


def _reasons(row: _Row) -> None:
    for reason in row.stored.manifest.verdict.reasons:
        Text(reason, "under")
