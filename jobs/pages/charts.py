"""Charts as inline SVG: lines, dots with whiskers, a strip of marks; no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from jobs.pages.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axes,
    Tick,
    across,
    around,
    dated,
    levels,
    rule,
)
from jobs.pages.markup import figure

NOTHING = "<p>Nothing to draw: the figure is not defined here.</p>"
_STRIP_HEIGHT, _STRIP_BAR = 72, 34
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a colour of the style sheet, a name, a value (or a gap) at each place.

    `name` "" keeps it out of the key: the second border of a band.
    """

    colour: str
    name: str
    values: Sequence[float | None]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with the ends of its whisker, where it has one."""

    value: float | None
    reach: Span | None = None

    @property
    def extent(self) -> tuple[float, ...]:
        """All that has to be seen of it."""
        return () if self.value is None else (self.value, *(self.reach or ()))


@dataclass(frozen=True, slots=True)
class Dots:
    """One set of dots: a colour, a name, and a dot for each label."""

    colour: str
    name: str
    values: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class Mark:
    """One bar of a strip: where it stands (epoch seconds), a colour, a title."""

    time: float
    colour: str
    title: str


def chart(
    places: Sequence[float],
    lines: Sequence[Line],
    ticks: Sequence[Tick],
    *,
    below: str = "",
    is_log: bool = False,
    within: Span = (-math.inf, math.inf),
    mark: float | None = None,
    shaded: Sequence[Span] = (),
) -> str:
    """A chart of `lines` over `places`, the last line on top; `below` names what runs across.

    Values that are not `within` are drawn at the edge; `mark`: a dashed level; `shaded`: spans of
    places with a grey ground.
    """
    shown = [value for line in lines for value in line.values if value is not None]
    if not shown:
        return NOTHING
    low, high = _bounds(shown, within, mark, is_log)
    axes = around(places[0], places[-1], low, high, is_log=is_log)
    parts = (
        *(_ground(axes, span) for span in shaded),
        levels(axes),
        across(axes, ticks),
        "" if mark is None else rule("mark", axes.y(mark)),
        *(_path(places, line, axes) for line in lines),
    )
    keys = [_key(line.colour, line.name, line.is_dashed) for line in lines if line.name]
    names = [line.name for line in lines if line.name]
    return _drawn(keys, names, HEIGHT, "".join(parts), below)


def dots(
    labels: Sequence[str],
    series: Sequence[Dots],
    mark: float | None = None,
    band: Span | None = None,
) -> str:
    """Dots with whiskers side by side over each label, a dashed line at `mark`, a shaded `band`."""
    shown = [bound for item in series for dot in item.values for bound in dot.extent]
    if not shown:
        return NOTHING
    marks = () if mark is None else (mark,)
    seen = (*shown, *(band or ()), *marks)
    axes = around(0.0, float(len(labels)), min(seen), max(seen))
    between = min(26.0, (WIDTH - LEFT - RIGHT) / len(labels) / (len(series) + 1))
    parts = (
        "" if band is None else _band(axes, band),
        levels(axes),
        across(axes, [(place + 0.5, label) for place, label in enumerate(labels)]),
        *(rule("mark", axes.y(one)) for one in marks),
        *(
            _dot(dot, axes.x(place + 0.5) + (i - (len(series) - 1) / 2) * between, item, axes)
            for i, item in enumerate(series)
            for place, dot in enumerate(item.values)
        ),
    )
    keys = [_key(item.colour, item.name) for item in series]
    return _drawn(keys, [item.name for item in series], HEIGHT, "".join(parts))


def strip(marks: Sequence[Mark], keys: Sequence[tuple[str, str]]) -> str:
    """A bar for each mark along time; `keys`: each colour with its name."""
    times = [mark.time for mark in marks]
    axes = Axes(times[0], times[-1])
    width = max(1.5, min(14.0, 0.8 * (WIDTH - LEFT - RIGHT) / len(times)))
    bars = "".join(
        f'<rect x="{axes.x(mark.time) - width / 2:.1f}" y="4" width="{width:.1f}" '
        f'height="{_STRIP_BAR}" fill="var(--{mark.colour})"><title>{escape(mark.title)}</title>'
        "</rect>"
        for mark in marks
    )
    content = bars + across(axes, dated(times), _STRIP_HEIGHT)
    names = [name for _, name in keys]
    return _drawn([_key(*key) for key in keys], names, _STRIP_HEIGHT, content)


def middle(lines: Sequence[Line]) -> Span:
    """The bounds of the middle 98 % of all values: points on few events may be wild."""
    ordered = sorted(value for line in lines for value in line.values if value is not None)
    cut = len(ordered) // 100
    return (ordered[cut], ordered[-1 - cut]) if ordered else (-math.inf, math.inf)


def _drawn(
    keys: Sequence[str], names: Sequence[str], height: int, content: str, below: str = ""
) -> str:
    told = f'<div class="below">{escape(below)}</div>' if below else ""
    return (
        f"<figure><figcaption>{''.join(keys)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(", ".join(names))}">'
        f"{content}</svg>{told}</figure>"
    )


def _key(colour: str, name: str, is_dashed: bool = False) -> str:
    kind = "key dashed" if is_dashed else "key"
    return f'<span class="{kind}" style="color:var(--{colour})"><span>{escape(name)}</span></span>'


def _bounds(shown: Sequence[float], within: Span, mark: float | None, is_log: bool) -> Span:
    """The lowest and highest value that the axes have to hold; `mark` is always among them."""
    inside = [min(max(value, within[0]), within[1]) for value in (min(shown), max(shown))]
    low, high = min(inside), max(inside)
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    if is_log:
        # A logarithm has no zero; six decades are enough to see.
        least = min((value for value in shown if value > 0), default=high)
        low = max(low if low > 0 else least, high * 1e-6)
    return low, high


def _path(places: Sequence[float], line: Line, axes: Axes) -> str:
    path, pen = [], "M"
    for place, value in zip(places, line.values, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{axes.x(place):.1f} {axes.y(value):.1f}")
        pen = "L"
    if len(path) == 1:
        path.append("h2")
    dashes = ' stroke-dasharray="6 4"' if line.is_dashed else ""
    return (
        f'<path class="series" d="{"".join(path)}" stroke="var(--{line.colour})"{dashes}>'
        f"<title>{escape(line.name)}</title></path>"
    )


def _ground(axes: Axes, span: Span) -> str:
    left, right = axes.x(span[0]), axes.x(span[1])
    return (
        f'<rect class="ground" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/>'
    )


def _band(axes: Axes, band: Span) -> str:
    bottom, top = axes.y(band[0]), axes.y(band[1])
    return (
        f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{bottom - top:.1f}"/>'
    )


def _dot(dot: Dot, x: float, item: Dots, axes: Axes) -> str:
    if dot.value is None:
        return ""
    colour, told, whisker = f"var(--{item.colour})", f"{item.name} {figure(dot.value, 4)}", ""
    if dot.reach is not None:
        low, high = dot.reach
        told += f", {figure(low, 4)} to {figure(high, 4)}"
        ends = f"M{x:.1f} {axes.y(low):.1f}V{axes.y(high):.1f}"
        whisker = f'<path class="whisker" d="{ends}" stroke="{colour}"/>'
    return (
        f"<g><title>{escape(told)}</title>{whisker}"
        f'<circle cx="{x:.1f}" cy="{axes.y(dot.value):.1f}" r="5" fill="{colour}"/></g>'
    )
