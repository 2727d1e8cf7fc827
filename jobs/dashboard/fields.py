"""Fields of forms: a label above a plain input, which keyboards and screen readers know."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from jobs.dashboard.parts import Text, attribute, box

_VALUE = "(event) => emit(event.target.value)"
"""What the browser sends of an event: the text alone."""


class Field:
    """A labelled input; `value` is what is in it."""

    def __init__(
        self,
        label: str,
        hint: str = "",
        *,
        value: str = "",
        kind: str = "text",
        grows: bool = False,
        changed: Callable[[], object] | None = None,
    ) -> None:
        self.value, self._changed = value, changed
        with box("field grow" if grows else "field", tag="label"):
            Text(label, tag="span")
            self.input = attribute(box(tag="input"), type=kind, placeholder=hint)
        # As an attribute: as a property it would be set again, over what is being typed.
        self.input.props["^value"] = value
        if kind == "number":
            attribute(self.input, step="any", inputmode="decimal")
        self.input.on("input", self._typed, js_handler=_VALUE)

    def number(self) -> float | None:
        """The value as a number; None where there is none."""
        try:
            number = float(self.value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def _typed(self, event: GenericEventArguments) -> None:
        self.value = str(event.args)
        if self._changed is not None:
            self._changed()


class Choice:
    """A labelled choice of one of several; `options`: values with what people read."""

    def __init__(
        self,
        label: str,
        options: Mapping[str, str],
        value: str = "",
        changed: Callable[[], object] | None = None,
    ) -> None:
        self.value, self._changed = value, changed
        with box("field", tag="label"):
            Text(label, tag="span")
            with box(tag="select") as select:
                for name, text in options.items():
                    _option(name, text, name == value)
        select.on("change", self._chosen, js_handler=_VALUE)

    def _chosen(self, event: GenericEventArguments) -> None:
        self.value = str(event.args)
        if self._changed is not None:
            self._changed()


def _option(name: str, text: str, is_chosen: bool) -> Element:
    made = attribute(Text(text, tag="option"), value=name)
    if is_chosen:
        made.props["selected"] = True
    return made
