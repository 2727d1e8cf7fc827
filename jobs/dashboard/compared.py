"""Canaries and shadows: how a candidate does beside the incumbent on live traffic."""

from __future__ import annotations

import math
from collections.abc import Callable

from app.storage.comparisons import Comparison
from jobs.dashboard.changing import end_comparison
from jobs.dashboard.frame import Page
from jobs.dashboard.parts import Button, Follower, Text, box, empty, link, pill
from jobs.dashboard.tables import Column, Table
from jobs.dashboard.units import NONE, ago, count, decimal, figures, money, percent, short
from models.comparison import Judgement, Side, difference, sides
from models.snapshot import Check

_SHOWN = 4
_NONE_YET = (
    "No canary and no shadow has run. Open a snapshot that passed the gate: as a canary it answers"
    " a share of the requests, as a shadow it is only measured."
)
_RESULTS = {
    "wait": ("too early to tell", ""),
    "promote": ("good enough to serve", "good"),
    "roll_back": ("worse than allowed", "bad"),
}
_OUTCOMES = {"promoted": "good", "rolled_back": "bad"}


def show_comparisons(page: Page) -> None:
    """The newest comparisons, those that run first; what is measured changes in its place."""
    follower = Follower()

    def build(shown: list[tuple[int, bool, bool]]) -> None:
        follower.clear()
        if not shown:
            empty(_NONE_YET)
        for one in _newest(page):
            _comparison(page, one, follower)

    page.follower.place(lambda: [_shape(one) for one in _newest(page)], build)
    page.follower.add(follower.refresh)


def _newest(page: Page) -> list[Comparison]:
    found = page.picture.comparisons
    return sorted(found, key=lambda one: (one.ended_ms is not None, -one.id))[:_SHOWN]


def _shape(one: Comparison) -> tuple[int, bool, bool]:
    """With what it is built anew; not with its figures, or its button would go while pressed."""
    return one.id, one.ended_ms is None, one.judgement is None


def _comparison(page: Page, one: Comparison, follower: Follower) -> None:
    def now() -> Comparison:
        return next((other for other in page.picture.comparisons if other.id == one.id), one)

    with box("compared"):
        with box("acts"):
            pill(one.kind, "blue")
            link(f"snapshot {short(one.snapshot_id)}", f"/snapshots/{one.snapshot_id}", "mono")
            Text(_beside(one), "small soft", tag="span")
            if one.ended_ms is None:
                Button(f"End the {one.kind} …", lambda: end_comparison(page, one))
            else:
                kind = _OUTCOMES.get(one.outcome or "", "")
                pill((one.outcome or "ended").replace("_", " "), kind)
        when = Text("", "small soft", tag="p")
        follower.add(lambda: _tell(when, _when(page, now())))
        _sides(now, follower)
        if one.judgement is not None:
            _judgement(lambda: now().judgement or one.judgement, follower)


def _tell(place: Text, text: str) -> None:
    place.set_text(text)


def _beside(one: Comparison) -> str:
    share = "" if one.share is None else f"answers {percent(one.share, 0)} "
    return f"{share}beside {short(one.incumbent_id)}"


def _when(page: Page, one: Comparison) -> str:
    at_s, who = page.picture.at_s, page.picture.who
    told = f"Since {ago(one.started_ms, at_s)}, by {who(one.actor)}"
    told += f": {one.reason}." if one.reason else "."
    if one.ended_ms is not None:
        told += f" Ended {ago(one.ended_ms, at_s)} by {who(one.ended_by or '')}"
        told += f": {one.end_reason}." if one.end_reason else "."
    return told


def _sides(now: Callable[[], Comparison], follower: Follower) -> None:
    columns: list[Column[tuple[str, Side]]] = [
        Column("", lambda row: row[0]),
        Column("impressions", lambda row: count(row[1].impressions), is_number=True),
        Column("clicks", lambda row: count(row[1].clicks), is_number=True),
        Column("log loss", lambda row: decimal(row[1].log_loss, 4), is_number=True),
        Column("calibration", lambda row: decimal(row[1].calibration), is_number=True),
        Column("spend", lambda row: money(row[1].spend_micros), is_number=True),
    ]
    both = Table(columns, "Both sides", key=lambda row: row[0])
    told = Text("", "small soft", tag="p")

    def refresh() -> None:
        one = now()
        found = sides(one.sums, shadow=one.kind == "shadow")
        both.show(list(zip(("candidate", "incumbent"), found, strict=True)))
        told.set_text(_difference(one))

    follower.add(refresh)


def _difference(one: Comparison) -> str:
    mean, error = difference(one.sums)
    is_known = math.isfinite(mean) and math.isfinite(error)
    told = f"{mean:+.5f} ± {error:.5f}" if is_known else NONE
    return (
        f"Candidate's log loss less the incumbent's, on the same impressions: {told}. Below 0 the"
        " candidate is better."
    )


def _judgement(now: Callable[[], Judgement | None], follower: Follower) -> None:
    with box("acts"):
        follower.place(lambda: _result(now()), lambda found: pill(*found))
        reasons = Text("", "small soft", tag="span")
    columns: list[Column[Check]] = [
        Column("check", lambda check: check.name.replace("_", " ")),
        Column("", _passed),
        Column("measured", lambda check: figures(check.value), is_number=True),
        Column("limit", lambda check: figures(check.limit), is_number=True),
    ]
    with box(tag="details"):
        Text("Checks of the rule", "small soft", tag="summary")
        checks = Table(columns, "Checks of the rule", key=lambda check: check.name)

    def refresh() -> None:
        judgement = now()
        if judgement is not None:
            reasons.set_text("; ".join(judgement.reasons))
            checks.show(judgement.checks)

    follower.add(refresh)


def _result(judgement: Judgement | None) -> tuple[str, str]:
    return ("", "") if judgement is None else _RESULTS[judgement.result]


def _passed(check: Check) -> None:
    pill("passed" if check.passed else "not yet", "good" if check.passed else "")
