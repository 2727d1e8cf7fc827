"""The changes that pages offer: what is asked before each, and the call that makes it."""

from __future__ import annotations

from urllib.parse import quote
from uuid import UUID

from nicegui import ui

from app.storage import snapshots
from app.storage.comparisons import Comparison
from app.storage.errors import StorageError
from jobs.dashboard.calls import Answer
from jobs.dashboard.confirming import Question, ask
from jobs.dashboard.frame import Page
from jobs.dashboard.units import count, exact_bid, percent, short


def _put(
    page: Page, question: Question, method: str, path: str, body: dict[str, object] | None = None
) -> None:
    async def make(why: str) -> Answer:
        given = {**(body or {}), "reason": why} if why else body
        if method == "DELETE":
            return await page.desk.calls.make(page.session, method, f"{path}?reason={quote(why)}")
        return await page.desk.calls.make(page.session, method, path, given)

    ask(page, question, make)


async def roll_back(page: Page) -> None:
    """Serve what served before, pinned; not if another one serves by then than was named."""
    try:
        now, before = await snapshots.stack_top(page.desk.database)
    except StorageError as error:
        ui.notify(f"The database does not answer: {error}", type="warning")
        return
    if now is None or before is None:
        ui.notify("There is no earlier snapshot to go back to that still exists.", type="warning")
        return
    question = Question(
        "Roll back?",
        f"Snapshot `{short(now)}` serves. Every worker goes back to `{short(before)}`, and it is"
        " pinned: new snapshots wait until you let them serve again. Training goes on from it.",
        "Roll back",
        f"Snapshot {short(before)} serves, pinned.",
        is_grave=True,
        asks_why=True,
    )
    _put(page, question, "POST", "/v1/snapshots/rollback", {"serving": str(now)})


def unpin(page: Page) -> None:
    """Let new snapshots serve."""
    question = Question(
        "Let new snapshots serve?",
        "The next snapshot that passes the gate serves. Until then nothing changes.",
        "Let them serve",
        "The pin is off: the next accepted snapshot serves.",
        asks_why=True,
    )
    _put(page, question, "POST", "/v1/snapshots/unpin", {})


def pin(page: Page) -> None:
    """Keep what serves."""
    question = Question(
        "Pin what serves?",
        "It stays when new ones are trained, until you let those serve.",
        "Pin",
        "It is pinned.",
        asks_why=True,
    )
    _put(page, question, "POST", "/v1/snapshots/pin", {})


def promote(page: Page, snapshot_id: UUID, *, is_pinning: bool) -> None:
    """Serve a snapshot, and keep it when `is_pinning`."""
    name = f"snapshot {short(snapshot_id)}"
    kept = " It stays when new ones are trained, until you let those serve." if is_pinning else ""
    question = Question(
        f"Serve {name}?",
        f"Every worker loads it, and training goes on from it.{kept}",
        "Serve and pin" if is_pinning else "Serve",
        f"{name.capitalize()} serves{', pinned' if is_pinning else ''}.",
        is_grave=True,
        asks_why=True,
    )
    _put(page, question, "POST", f"/v1/snapshots/{snapshot_id}/promote", {"pin": is_pinning})


def start_canary(page: Page, snapshot_id: UUID, share: float) -> None:
    """Let a snapshot answer a share of the requests."""
    name = f"snapshot {short(snapshot_id)}"
    question = Question(
        f"Let {name} answer {percent(share, 0)}?",
        "That share of decisions and scores comes from it, the others from what serves now. Once"
        " both have enough clicks, it is promoted or taken back by the rule. New snapshots wait.",
        "Start the canary",
        f"{name.capitalize()} answers {percent(share, 0)}.",
        asks_why=True,
    )
    _put(page, question, "POST", f"/v1/snapshots/{snapshot_id}/canary", {"share": share})


def start_shadow(page: Page, snapshot_id: UUID) -> None:
    """Measure a snapshot on what the incumbent answers."""
    name = f"snapshot {short(snapshot_id)}"
    question = Question(
        f"Measure {name} in the shadow?",
        "It answers nothing. Both snapshots score the impressions that are shown, and you see whose"
        " predictions were better.",
        "Start the shadow",
        f"{name.capitalize()} is measured from now on.",
        asks_why=True,
    )
    _put(page, question, "POST", f"/v1/snapshots/{snapshot_id}/shadow", {})


def end_comparison(page: Page, one: Comparison) -> None:
    """End a canary or a shadow by hand."""
    question = Question(
        f"End the {one.kind}?",
        "The incumbent answers alone again."
        if one.kind == "canary"
        else "It is no longer measured; what was measured stays.",
        f"End the {one.kind}",
        f"The {one.kind} is over.",
        asks_why=True,
    )
    _put(page, question, "DELETE", f"/v1/snapshots/{one.snapshot_id}/{one.kind}")


def set_state(page: Page, ad_id: int, state: str) -> None:
    """Pause, resume or retire an ad."""
    _put(page, _of_state(ad_id, state), "PATCH", f"/v1/ads/{ad_id}", {"state": state})


def _of_state(ad_id: int, state: str) -> Question:
    if state == "paused":
        return Question(
            f"Pause ad {ad_id}?",
            "No worker shows it once they have confirmed. What the model knows of it stays.",
            "Pause",
            f"Ad {ad_id} is paused: no answer has it any more.",
        )
    if state == "retired":
        return Question(
            f"Retire ad {ad_id} for ever?",
            "It is never shown again and cannot come back. What the model knows of it is dropped"
            " in time.",
            "Retire for ever",
            f"Ad {ad_id} is retired.",
            is_grave=True,
        )
    return Question(
        f"Resume ad {ad_id}?",
        "It competes again where its targeting and flight allow.",
        "Resume",
        f"Ad {ad_id} is active.",
    )


def set_bid(page: Page, ad_id: int, micros: int, kind: str, before: int) -> None:
    """Change an ad's bid."""
    question = Question(
        f"Change the bid of ad {ad_id}?",
        f"From {exact_bid(before, kind)} to {exact_bid(micros, kind)}.",
        "Change the bid",
        f"Ad {ad_id} bids {exact_bid(micros, kind)}.",
    )
    _put(page, question, "PATCH", f"/v1/ads/{ad_id}", {"bid_micros": micros})


def release(page: Page, rule: str, events: int) -> None:
    """Let the events that a rule has set aside count."""
    question = Question(
        f"Release what the rule “{rule}” has set aside?",
        f"{count(events)} events count and are learned as if nothing had been wrong with them.",
        "Release",
        "They count, and are learned with the next chunk.",
        is_grave=True,
    )
    _put(page, question, "POST", "/v1/quarantine/release", {"rule": rule})
