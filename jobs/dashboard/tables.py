"""Tables: built once, and told what is new cell by cell, so that no button goes while pressed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nicegui.element import Element

from jobs.dashboard.parts import Button, Follower, Text, attribute, box

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table: its head, and what builds the cell of a row.

    A cell is text, or whatever its function builds; `of` is what that depends on, the whole row
    if nothing is said. On a phone a row becomes a block: `phone` is full for a line of its own.
    """

    head: str
    cell: Callable[[T], object]
    is_number: bool = False
    phone: str = ""
    of: Callable[[T], object] | None = None

    @property
    def kind(self) -> str:
        """Its class."""
        return "number" if self.is_number else ""


@dataclass(slots=True)
class _Cell(Generic[T]):
    """A cell and what it shows."""

    column: Column[T]
    inside: Element
    text: Text | None = None
    last: object = None

    def show(self, row: T) -> None:
        """Show the row's value."""
        depends = self.column.of
        if self.text is not None:
            found = self.column.cell(row)
            self.text.set_text(found if isinstance(found, str) else "")
            return
        seen = row if depends is None else depends(row)
        if self.last is not None and self.last == seen:
            return
        self.last = seen
        self.inside.clear()
        with self.inside:
            built = self.column.cell(row)
            if isinstance(built, str):
                self.text = Text(built, tag="span")


class Table(Generic[T]):
    """A table of rows that `key` tells apart; `label` says what it shows."""

    def __init__(
        self, columns: Sequence[Column[T]], label: str, key: Callable[[T], Hashable]
    ) -> None:
        self._columns, self._key = columns, key
        self._keys: list[Hashable] = []
        self._cells: list[list[_Cell[T]]] = []
        with attribute(box("cards", tag="table"), aria_label=label):
            with box(tag="thead"), box(tag="tr"):
                for column in columns:
                    attribute(Text(column.head, column.kind, tag="th"), scope="col")
            self._body = box(tag="tbody")

    def show(self, rows: Sequence[T]) -> None:
        """Show these rows; where they are the same ones, only what has changed in them."""
        keys = [self._key(row) for row in rows]
        if keys != self._keys:
            self._keys = keys
            self._body.clear()
            with self._body:
                self._cells = [self._row() for _ in rows]
        for cells, row in zip(self._cells, rows, strict=True):
            for cell in cells:
                cell.show(row)

    def _row(self) -> list[_Cell[T]]:
        with box(tag="tr"):
            return [_Cell(column, _empty(column)) for column in self._columns]


def _empty(column: Column[T]) -> Element:
    made = box(f"{column.kind} {column.phone}", tag="td")
    if column.is_number and column.head:
        made.props["data-name"] = column.head
    return made


def table(columns: Sequence[Column[T]], rows: Sequence[T], label: str) -> None:
    """A table that stays as it is."""
    Table(columns, label, key=id).show(rows)


@dataclass(slots=True)
class Growing(Generic[T]):
    """A list that shows its first rows, and `step` more of them whenever asked."""

    follower: Follower
    read: Callable[[], Sequence[T]]
    step: int
    _shown: int = field(default=0)

    def place(self, build: Callable[[Sequence[T]], None]) -> None:
        """Put it here; `build` is given the rows to show, none for an empty list."""
        self._shown = self.step
        self.follower.place(lambda: self.read()[: self._shown], build)
        # Beside the list, not in it: that is built anew with every row that comes.
        more = Button("", self._grow, "more")

        def refresh() -> None:
            count = len(self.read())
            more.set_text(f"Show more of {count}")
            more.set_visibility(count > self._shown)

        self.follower.add(refresh)

    def _grow(self) -> None:
        self._shown += self.step
        self.follower.refresh()
