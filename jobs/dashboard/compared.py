"""Canaries and shadows: how a candidate does beside the incumbent on live traffic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.storage.comparisons import Comparison
from jobs.dashboard.changing import end_comparison
from jobs.dashboard.frame import Page
from jobs.dashboard.parts import Button, Text, box, empty, link, pill
from jobs.dashboard.tables import Column, table
from jobs.dashboard.units import NONE, ago, count, decimal, figures, money, percent, short
from models.comparison import Judgement, Side, difference, sides
from models.snapshot import Check

_SHOWN = 4
_RESULTS = {
    "wait": ("too early to tell", ""),
    "promote": ("good enough to serve", "good"),
    "roll_back": ("worse than allowed", "bad"),
}
_OUTCOMES = {"promoted": "good", "rolled_back": "bad"}


def show_comparisons(page: Page, found: Sequence[Comparison]) -> None:
    """The newest comparisons, those that run first."""
    if not found:
        empty(
            "No canary and no shadow has run. Open a snapshot that passed the gate: as a canary it"
            " answers a share of the requests, as a shadow it is only measured."
        )
        return
    ordered = sorted(found, key=lambda one: (one.ended_ms is not None, -one.id))
    for one in ordered[:_SHOWN]:
        _comparison(page, one)


def _comparison(page: Page, one: Comparison) -> None:
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
        Text(_when(page, one), "small soft", tag="p")
        _sides(one)
        if one.judgement is not None:
            _judgement(one.judgement)


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


def _sides(one: Comparison) -> None:
    candidate, incumbent = sides(one.sums, shadow=one.kind == "shadow")
    columns: list[Column[tuple[str, Side]]] = [
        Column("", lambda row: row[0]),
        Column("impressions", lambda row: count(row[1].impressions), is_number=True),
        Column("clicks", lambda row: count(row[1].clicks), is_number=True),
        Column("log loss", lambda row: decimal(row[1].log_loss, 4), is_number=True),
        Column("calibration", lambda row: decimal(row[1].calibration), is_number=True),
        Column("spend", lambda row: money(row[1].spend_micros), is_number=True),
    ]
    table(columns, [("candidate", candidate), ("incumbent", incumbent)], "Both sides")
    mean, error = difference(one.sums)
    is_known = math.isfinite(mean) and math.isfinite(error)
    told = f"{mean:+.5f} ± {error:.5f}" if is_known else NONE
    Text(
        f"Candidate's log loss less the incumbent's, on the same impressions: {told}. Below 0 the"
        " candidate is better.",
        "small soft",
        tag="p",
    )


def _judgement(judgement: Judgement) -> None:
    text, kind = _RESULTS[judgement.result]
    with box("acts"):
        pill(text, kind)
        Text("; ".join(judgement.reasons), "small soft", tag="span")
    columns: list[Column[Check]] = [
        Column("check", lambda check: check.name.replace("_", " ")),
        Column("", _passed),
        Column("measured", lambda check: figures(check.value), is_number=True),
        Column("limit", lambda check: figures(check.limit), is_number=True),
    ]
    with box(tag="details"):
        Text("Checks of the rule", "small soft", tag="summary")
        table(columns, judgement.checks, "Checks of the rule")


def _passed(check: Check) -> None:
    pill("passed" if check.passed else "not yet", "good" if check.passed else "")
