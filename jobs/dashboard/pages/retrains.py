"""Training runs: how each ended and why, and asking for one."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui
from starlette.requests import Request

from app.storage.job_runs import Run
from jobs.dashboard.calls import Answer
from jobs.dashboard.confirming import Question, ask
from jobs.dashboard.fields import Field
from jobs.dashboard.frame import Desk, Page, framed
from jobs.dashboard.parts import Submit, Text, attribute, card, empty, form, link, state
from jobs.dashboard.tables import Column, Growing, table
from jobs.dashboard.units import count, figures, lasting, moment, short, when

_STEP = 15
_WHY = {
    "skipped": "refused by the gate; the events were skipped",
    "empty": "nothing to learn",
}


def add(desk: Desk) -> None:
    """Register the page."""

    @ui.page("/retrains")
    def retrains(request: Request) -> None:
        told = "Every training run, how it ended, and why."
        with framed(desk, request.state.session, "/retrains", "Retrains", told) as page:
            with card(
                "Train now",
                "The next matured events, with settings of this run alone. The gate judges the"
                " result like any other; a run with settings of its own that is refused costs no"
                " events. Radii can only be tightened.",
            ):
                _form(page)
            with card("Runs", "The newest first."):
                runs = Growing(page.follower, lambda: page.picture.runs, _STEP)
                runs.place(lambda rows: _runs(rows, page))


def _form(page: Page) -> None:
    fields: dict[str, Field] = {}
    with form(lambda: _ask(page, fields), aria_label="Train now"):
        for name in ("step_size", "user_radius", "ad_radius"):
            label = name.replace("_", " ").capitalize()
            fields[name] = Field(label, "as configured", kind="number")
        Submit("Train now …", "strong")


def _ask(page: Page, fields: dict[str, Field]) -> None:
    overrides = {name: field.number() for name, field in fields.items()}
    given = {name: value for name, value in overrides.items() if value is not None}
    told = ", ".join(f"{name.replace('_', ' ')} {figures(value)}" for name, value in given.items())
    question = Question(
        "Train now?",
        f"With {told or 'the usual settings'}. `adscent jobs` starts it within a second.",
        "Train",
        "Asked for. It appears below, and ends with a verdict.",
    )

    async def make(_why: str) -> Answer:
        return await page.desk.calls.make(page.session, "POST", "/v1/retrains", given)

    ask(page, question, make)


def _runs(runs: Sequence[Run], page: Page) -> None:
    if not runs:
        empty("No run yet. `adscent jobs` trains as soon as events have matured, or ask for one.")
        return
    table(
        [
            Column("asked", lambda run: _asked(run, page)),
            Column("state", lambda run: state(run.state)),
            Column("events", lambda run: count(run.events), is_number=True),
            Column("took", _took, is_number=True),
            Column("settings", _settings, phone="full"),
            Column("result", _result, phone="full"),
        ],
        runs,
        "Training runs",
    )


def _asked(run: Run, page: Page) -> None:
    shown = when(run.requested_ms, page.picture.at_s)
    attribute(Text(shown, tag="span"), title=moment(run.requested_ms))
    Text(f"by {page.picture.who(run.actor)}", "under")


def _took(run: Run) -> str:
    if run.started_ms is None or run.finished_ms is None:
        return "…"
    return lasting((run.finished_ms - run.started_ms) / 1000)


def _settings(run: Run) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {figures(float(str(value)))}"
        for name, value in run.overrides.items()
        if value is not None
    )


def _result(run: Run) -> None:
    if run.snapshot_id is not None:
        link(f"snapshot {short(run.snapshot_id)}", f"/snapshots/{run.snapshot_id}", "mono")
    if run.state in _WHY:
        Text(_WHY[run.state], "under")
    for reason in run.reasons:
        Text(reason, "under")
