"""The pieces of a page that are not drawn: the document, its cards, tables, figures as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.pages.style import STYLE


def document(title: str, intro: str, sections: Sequence[str]) -> str:
    """The whole page; `title` is text, `intro` and `sections` are markup."""
    name = escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head><body>"
        f"<h1>{name}</h1><p>{intro}</p>{''.join(sections)}</body></html>\n"
    )


def section(title: str, note: str, content: str) -> str:
    """A card of the page; `note` and `content` are markup."""
    return f"<section><h2>{title}</h2><p>{note}</p>{content}</section>"


def table(heads: Sequence[str], rows: Sequence[str], kind: str = "") -> str:
    """A table under one head a column, none without heads; `rows`: markup, `kind`: its class.

    It scrolls in a box of its own, so that the page never does sideways.
    """
    cells = "".join(f"<th>{head}</th>" for head in heads)
    head = f"<thead><tr>{cells}</tr></thead>" if heads else ""
    return (
        f'<div class=scroll tabindex=0><table class="{kind}">{head}'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Sequence[str], kind: str = "") -> str:
    """A table row of cells, markup; `kind`: its class."""
    return f'<tr class="{kind}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def figure(value: float | None, digits: int) -> str:
    """The value with so many decimals, a dash without one."""
    return "–" if value is None else f"{value:.{digits}f}"
