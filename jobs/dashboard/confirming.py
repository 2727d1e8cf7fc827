"""Asking before a change, and telling which workers hold it afterwards."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nicegui import ui
from nicegui.element import Element

from app.storage.workers import Worker
from jobs.dashboard.calls import Answer, CallFailed
from jobs.dashboard.fields import Field
from jobs.dashboard.frame import Page
from jobs.dashboard.parts import Button, Text, attribute, box, prose


@dataclass(frozen=True, slots=True)
class Question:
    """A change to be confirmed: its title, what it will do, and the word on the button.

    `done`: what holds once it is made; `is_grave`: one may regret it; `asks_why`: whether a reason
    can be given, which stands in the history.
    """

    title: str
    consequence: str
    verb: str
    done: str
    is_grave: bool = False
    asks_why: bool = False


Make = Callable[[str], Awaitable[Answer]]
"""Makes the change, given the reason."""


def ask(page: Page, question: Question, make: Make) -> None:
    """Open a dialog that makes the change when it is confirmed. Esc leaves things as they are."""
    # Where the button stood may be built anew by the change itself: the dialog has to outlast it.
    with page.ground:
        dialog = _Dialog(question, make, lambda: page.picture.workers)
    dialog.open()


class _Dialog:
    def __init__(
        self, question: Question, make: Make, workers: Callable[[], Sequence[Worker]]
    ) -> None:
        self._question, self._make, self._workers = question, make, workers
        self._why: Field | None = None
        self._dialog = ui.dialog()
        self._dialog.on("hide", self._dialog.delete)
        with self._dialog:
            self._inside = attribute(box("question"), role="alertdialog", aria_label=question.title)

    def open(self) -> None:
        """Ask."""
        question = self._question
        with self._inside:
            Text(question.title, tag="h2")
            prose(question.consequence, "pre", tag="p")
            if question.asks_why:
                self._why = Field("Why? It stands in the history", "optional")
            with box("acts"):
                cancel = Button("Cancel", self._dialog.close)
                verb = Button(question.verb, self._act, "danger" if question.is_grave else "strong")
        # Enter does what is safe: a grave change has to be chosen.
        (cancel if question.is_grave else verb).props["autofocus"] = True
        self._dialog.open()

    async def _act(self) -> None:
        self._told("Waiting until every worker has it …")
        started = time.monotonic()
        try:
            answer = await self._make("" if self._why is None else self._why.value.strip()[:500])
        except CallFailed as error:
            self._show_failure(error)
            return
        self._show(answer, time.monotonic() - started)

    def _told(self, text: str) -> None:
        with self._anew(self._question.title):
            Text(text, tag="p")

    def _show_failure(self, error: CallFailed) -> None:
        with self._anew("Not done"):
            prose(str(error), "bad", tag="p")
            for remedy in error.remedies:
                prose(remedy, tag="p")
            self._closing()

    def _show(self, answer: Answer, seconds: float) -> None:
        held, pending = answer.acknowledged, answer.pending
        with self._anew("Not everywhere yet" if pending else "Done"):
            if pending:
                Text("The change is recorded.", "warn", tag="p")
            else:
                Text(self._question.done, "good", tag="p")
            if held:
                Text(f"Confirmed by {_workers(len(held))} in {1000 * seconds:.0f} ms.", tag="p")
                self._listed(held)
            if pending:
                Text(f"Not confirmed by {_workers(len(pending))}:", "warn", tag="p")
                self._listed(pending)
                Text(
                    "They take it as soon as they answer. One that is"
                    " silent for a minute counts as ended.",
                    tag="p",
                )
            self._closing()

    def _listed(self, names: Sequence[str]) -> None:
        known = {str(one.worker_id): _place(one) for one in self._workers()}
        with box(tag="ul"):
            for name in names:
                Text(known.get(name, name), tag="li")

    def _anew(self, title: str) -> Element:
        self._inside.clear()
        with self._inside:
            Text(title, tag="h2")
            return attribute(box(), role="status")

    def _closing(self) -> None:
        with box("acts"):
            close = Button("Close", self._dialog.close, "strong")
        close.run_method("focus")  # the button that had it is gone


def _place(worker: Worker) -> str:
    return f"{worker.host.partition('/')[0]}, process {worker.pid}"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
