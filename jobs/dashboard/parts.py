"""What pages are built of: text, tables, tiles, buttons, and places that follow what is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

T = TypeVar("T")
Act = Callable[[], object] | Callable[[], Awaitable[object]]


class Text(TextElement):
    """An HTML element that holds text, never markup."""

    def __init__(self, text: str, kind: str = "", tag: str = "div") -> None:
        super().__init__(tag=tag, text=text)
        if kind:
            self.classes(kind)


def box(kind: str = "", tag: str = "div") -> Element:
    """An HTML element that holds others."""
    made = ui.element(tag)
    return made.classes(kind) if kind else made


def prose(text: str, kind: str = "", tag: str = "div") -> Element:
    """Sentences in which what stands between backticks is code."""
    with box(kind, tag) as made:
        for at, part in enumerate(text.split("`")):
            if part:
                Text(part, tag="code" if at % 2 else "span")
    return made


def attribute(element: Element, **given: str) -> Element:
    """Set attributes of an element; `aria_label` is `aria-label`."""
    for name, value in given.items():
        element.props[name.replace("_", "-")] = value
    return element


class Button(Text):
    """A button; `kind`: strong for what one came for, danger for what one may regret."""

    def __init__(self, text: str, act: Act, kind: str = "") -> None:
        super().__init__(text, f"act {kind}", tag="button")
        self.props["type"] = "button"
        self.on("click", lambda: act())

    def enable(self, is_enabled: bool) -> None:
        """Let it be pressed or not."""
        if is_enabled:
            self.props.pop("disabled", None)
        else:
            self.props["disabled"] = True
        self.update()


@contextmanager
def form(act: Act, kind: str = "search", **attributes: str) -> Iterator[None]:
    """A form: Enter in a field does the same as its button, a `Submit`."""
    with attribute(box(kind, tag="form"), **attributes) as made:
        yield
    made.on("submit.prevent", lambda: act())


class Submit(Text):
    """The button of a form."""

    def __init__(self, text: str, kind: str = "") -> None:
        super().__init__(text, f"act {kind}", tag="button")
        self.props["type"] = "submit"


def link(text: str, target: str, kind: str = "") -> Element:
    """A link within the dashboard."""
    return attribute(Text(text, kind, tag="a"), href=target)


@contextmanager
def card(title: str, note: str = "", kind: str = "") -> Iterator[None]:
    """A card of the page with its heading."""
    with box(f"card {kind}", tag="section"):
        with box(tag="header"):
            Text(title, tag="h2")
            if note:
                Text(note, tag="p")
        yield


def grid() -> AbstractContextManager[Element]:
    """A grid of cards: their kinds `half`, `third` and `wide` are its columns."""
    return box("grid")


def empty(text: str) -> None:
    """What stands where there is nothing yet: it says what to do."""
    prose(text[:1].upper() + text[1:], "empty")


def pill(text: str, kind: str = "") -> None:
    """A short state in its colour."""
    Text(text, f"pill {kind}", tag="span")


STATES = {
    **dict.fromkeys(("active", "accepted", "served"), "good"),
    **dict.fromkeys(("paused", "repaired", "skipped", "requested", "running", "pinned"), "warn"),
    **dict.fromkeys(("refused", "failed"), "bad"),
}
"""The colour of each state; the others are grey."""


def state(name: str) -> None:
    """A state by its name."""
    pill(name, STATES.get(name, ""))


class Tile:
    """One number with its name, unit and a note, and the line it has drawn lately."""

    def __init__(self, name: str) -> None:
        with box("tile"):
            Text(name, "name")
            with box("value"):
                self._value = Text("–", tag="span")
                self._unit = Text("", "unit", tag="span")
            self._note = Text("", "note")

    def show(self, value: str, unit: str = "", note: str = "", kind: str = "") -> None:
        """Show a value; `kind`: the colour it gets, such as bad."""
        self._value.set_text(value)
        self._unit.set_text(unit if value != "–" else "")
        self._note.set_text(note)
        self._value.classes(replace=kind)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Names with their values."""
    with box("facts", tag="dl"):
        for name, value in pairs:
            Text(name, tag="dt")
            Text(value, tag="dd")


@dataclass(slots=True)
class Follower:
    """Brings the parts of one page up to date, those whose values have changed."""

    _parts: list[Callable[[], None]] = field(default_factory=list)

    def add(self, refresh: Callable[[], None]) -> None:
        """Call this now and whenever there may be news."""
        self._parts.append(refresh)
        refresh()

    def place(self, read: Callable[[], T], build: Callable[[T], None], kind: str = "") -> None:
        """A place that is built anew when what `read` returns has changed."""
        inside = box(kind)
        last: list[T] = []

        def refresh() -> None:
            found = read()
            if last == [found]:
                return
            last[:] = [found]
            inside.clear()
            with inside:
                build(found)

        self.add(refresh)

    def clear(self) -> None:
        """Follow nothing any more: the parts are gone."""
        self._parts.clear()

    def refresh(self) -> None:
        """Look whether there is news."""
        for part in self._parts:
            part()
