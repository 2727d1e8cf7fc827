"""Line charts as inline SVG, with linear or logarithmic height."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a colour variable of the page, a name, a value (or a gap) at each place.

    `name` "" keeps it out of the key: the second border of a band.
    """

    colour: str
    name: str
    values: Sequence[float | None]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axes:
    """Maps values to the drawing: x over [first, last], y over [low, high] or their logarithms."""

    first: float
    last: float
    low: float
    high: float
    is_log: bool

    def x(self, value: float) -> float:
        """From the left."""
        share = (value - self.first) / (self.last - self.first or 1.0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top; kept inside the drawing."""
        low, high, at = (self._scaled(one) for one in (self.low, self.high, value))
        share = min(max((at - low) / (high - low or 1.0), 0.0), 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.is_log else value


def chart(
    places: Sequence[float],
    lines: Sequence[Line],
    below: str,
    *,
    is_log: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
    mark: float | None = None,
    shaded: Sequence[tuple[float, float]] = (),
    labels: Sequence[str] | None = None,
) -> str:
    """A chart of `lines` over `places`; `below` names what runs across.

    Values that are not `within` are drawn at the edge; `mark`: a dashed level; `shaded`: spans of
    places with a grey ground; `labels`: one for each place; without, the
    first, middle and last place are numbered.
    """
    shown = [value for line in lines for value in line.values if value is not None]
    if not shown:
        return "<p>Nothing to draw.</p>"
    axes = _axes(places, [*shown, *([] if mark is None else [mark])], within, is_log)
    keys = "".join(_key(line) for line in lines if line.name)
    parts = (
        *(_ground(axes, span) for span in shaded),
        _levels(axes),
        _across(axes, _ticks(places, labels), below),
        "" if mark is None else _level("mark", axes.y(mark)),
        *(_path(places, line, axes) for line in lines),
    )
    names = ", ".join(line.name for line in lines if line.name)
    return (
        f"<figure><figcaption>{keys}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(names)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _key(line: Line) -> str:
    name = f"<span>{escape(line.name)}</span>"
    return f'<span class=key style="color:var(--{line.colour})">{name}</span>'


def _axes(
    places: Sequence[float],
    shown: Sequence[float],
    within: tuple[float, float],
    is_log: bool,
) -> Axes:
    low, high = max(min(shown), within[0]), min(max(shown), within[1])
    if is_log:
        positive = [value for value in shown if value > 0]
        low = max(min(positive, default=high), high * 1e-6)
        return Axes(places[0], places[-1], low / 1.15, high * 1.15, is_log=True)
    margin = 0.06 * (high - low) or 0.1
    return Axes(places[0], places[-1], low - margin, high + margin, is_log=False)


def _path(places: Sequence[float], line: Line, axes: Axes) -> str:
    path, pen = [], "M"
    for place, value in zip(places, line.values, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{axes.x(place):.1f} {axes.y(value):.1f}")
        pen = "L"
    dashes = ' stroke-dasharray="6 4"' if line.is_dashed else ""
    return (
        f'<path class="series" d="{"".join(path)}" stroke="var(--{line.colour})"{dashes}>'
        f"<title>{escape(line.name)}</title></path>"
    )


def _ground(axes: Axes, span: tuple[float, float]) -> str:
    left, right = axes.x(span[0]), axes.x(span[1])
    height = HEIGHT - TOP - BOTTOM
    return (
        f'<rect class="ground" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
        f'height="{height}"/>'
    )


def _levels(axes: Axes) -> str:
    parts = []
    for value in _decades(axes) if axes.is_log else _steps(axes):
        y = axes.y(value)
        text = f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,.4g}</text>'
        parts.append(_level("grid", y) + text)
    return "".join(parts)


def _steps(axes: Axes) -> list[float]:
    least = (axes.high - axes.low) / 4
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
    numbers = range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1)
    return [round(number * step, 12) for number in numbers]


def _decades(axes: Axes) -> list[float]:
    powers = range(math.floor(math.log10(axes.low)), math.ceil(math.log10(axes.high)) + 1)
    every = max(1, len(powers) // 5)
    factors = (1, 2, 5) if len(powers) < 4 else (1,)
    values = [factor * 10.0**power for power in powers[::every] for factor in factors]
    return [value for value in values if axes.low <= value <= axes.high]


def _level(kind: str, y: float) -> str:
    return f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'


def _ticks(places: Sequence[float], labels: Sequence[str] | None) -> list[tuple[float, str]]:
    if labels is not None:
        return list(zip(places, labels, strict=True))
    return [(place, f"{place:g}") for place in (places[0], places[len(places) // 2], places[-1])]


def _across(axes: Axes, ticks: Sequence[tuple[float, str]], below: str) -> str:
    labels = []
    for tick, label in ticks:
        anchor = "start" if tick == axes.first else "end" if tick == axes.last else "middle"
        at = f'x="{axes.x(tick):.0f}" y="{HEIGHT - 22}" text-anchor="{anchor}"'
        labels.append(f"<text {at}>{escape(label)}</text>")
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f"{''.join(labels)}"
        f'<text x="{middle:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(below)}</text>'
    )
