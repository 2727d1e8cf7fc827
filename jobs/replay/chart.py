"""Charts as inline SVG: lines over time, dots with whiskers, a strip of marks; no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 76, 12, 12, 30
_STRIP_HEIGHT, _STRIP_BAR = 64, 34
NOTHING = "<p>Nothing to draw: the figure is not defined on this log.</p>"


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a colour variable, a name, and a value (or a gap) at each time."""

    colour: str
    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Dot:
    """A value with the ends of its whisker, where it has one."""

    value: float | None
    reach: tuple[float, float] | None = None

    @property
    def extent(self) -> tuple[float, ...]:
        """All that has to be seen of it."""
        return () if self.value is None else (self.value, *(self.reach or ()))


@dataclass(frozen=True, slots=True)
class Dots:
    """One set of dots: a colour variable, a name, and a dot for each label."""

    colour: str
    name: str
    values: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class Mark:
    """One bar of a strip: where it stands (epoch seconds), a colour variable, a title."""

    time: float
    colour: str
    title: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps [low, high] to [start, stop] in the drawing, linearly."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.stop - self.start)


def chart(times: Sequence[float], series: Sequence[Series], mark: float | None = None) -> str:
    """A line chart over `times` (epoch seconds), with a dashed line at `mark`."""
    shown = [value for item in series for value in item.values if value is not None]
    if not shown:
        return NOTHING
    # The first points stand on few events and may be wild: the middle 98 % set the scale.
    ordered, cut = sorted(shown), len(shown) // 100
    up = _upwards(ordered[cut : len(ordered) - cut], mark)
    across = _Scale(times[0], times[-1], LEFT, WIDTH - RIGHT)
    marked = "" if mark is None else _rule("mark", up(mark))
    lines = "".join(_line(times, item, across, up) for item in series)
    keys = [
        (item.colour, f"{item.name} {figure(_last(item.values), 3)}") for item in reversed(series)
    ]
    return _figure(keys, HEIGHT, f"{_grid(up)}{_dates(across, HEIGHT - 6)}{marked}{lines}")


def dots(
    labels: Sequence[str],
    series: Sequence[Dots],
    mark: float | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """Dots with whiskers side by side over each label, a dashed line at `mark`, a shaded `band`."""
    shown = [bound for item in series for dot in item.values for bound in dot.extent]
    if not shown:
        return NOTHING
    up = _upwards((*shown, *(band or ())), mark)
    room = (WIDTH - LEFT - RIGHT) / len(labels)
    middles = [LEFT + (i + 0.5) * room for i in range(len(labels))]
    names = "".join(
        f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>'
        for x, label in zip(middles, labels, strict=True)
    )
    shade = "" if band is None else _band(up(band[1]), up(band[0]))
    marked = "" if mark is None else _rule("mark", up(mark))
    between = min(26.0, room / (len(series) + 1))
    points = "".join(
        _dot(dot, x + (i - (len(series) - 1) / 2) * between, item, up)
        for i, item in enumerate(series)
        for x, dot in zip(middles, item.values, strict=True)
    )
    keys = [(item.colour, item.name) for item in series]
    return _figure(keys, HEIGHT, f"{shade}{_grid(up)}{names}{marked}{points}")


def strip(marks: Sequence[Mark], keys: Sequence[tuple[str, str]]) -> str:
    """A bar for each mark along time; `keys`: each colour with its name."""
    times = [mark.time for mark in marks]
    across = _Scale(times[0], times[-1], LEFT, WIDTH - RIGHT)
    width = max(1.5, min(14.0, 0.8 * (WIDTH - LEFT - RIGHT) / len(times)))
    bars = "".join(
        f'<rect x="{across(mark.time) - width / 2:.1f}" y="4" width="{width:.1f}" '
        f'height="{_STRIP_BAR}" fill="var(--{mark.colour})"><title>{escape(mark.title)}</title>'
        "</rect>"
        for mark in marks
    )
    return _figure(keys, _STRIP_HEIGHT, f"{bars}{_dates(across, _STRIP_HEIGHT - 6)}")


def figure(value: float | None, digits: int) -> str:
    """The value with so many decimals, a dash without one."""
    return "–" if value is None else f"{value:.{digits}f}"


def _figure(keys: Sequence[tuple[str, str]], height: int, content: str) -> str:
    drawn = "".join(
        f'<span class=key style="color:var(--{colour})"><span>{escape(name)}</span></span>'
        for colour, name in keys
    )
    names = escape(", ".join(name for _, name in keys))
    return (
        f"<figure><figcaption>{drawn}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{names}">{content}</svg>'
        "</figure>"
    )


def _upwards(shown: Sequence[float], mark: float | None) -> _Scale:
    low, high = min(shown), max(shown)
    if mark is not None:
        low, high = min(low, mark), max(high, mark)
    margin = 0.08 * (high - low) or 0.1
    return _Scale(low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def _dot(dot: Dot, x: float, item: Dots, up: _Scale) -> str:
    if dot.value is None:
        return ""
    colour, told = f"var(--{item.colour})", f"{item.name} {figure(dot.value, 4)}"
    whisker = ""
    if dot.reach is not None:
        low, high = dot.reach
        told += f", {figure(low, 4)} to {figure(high, 4)}"
        whisker = (
            f'<path class="whisker" d="M{x:.1f} {up(low):.1f}V{up(high):.1f}" stroke="{colour}"/>'
        )
    return (
        f"<g><title>{escape(told)}</title>{whisker}"
        f'<circle cx="{x:.1f}" cy="{up(dot.value):.1f}" r="5" fill="{colour}"/></g>'
    )


def _band(top: float, bottom: float) -> str:
    return (
        f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{bottom - top:.1f}"/>'
    )


def _line(times: Sequence[float], item: Series, across: _Scale, up: _Scale) -> str:
    path, pen = [], "M"
    for time, value in zip(times, item.values, strict=True):
        if value is None:
            pen = "M"
            continue
        y = min(max(up(value), TOP), HEIGHT - BOTTOM)
        path.append(f"{pen}{across(time):.1f} {y:.1f}")
        pen = "L"
    if len(path) == 1:
        path.append("h2")
    return (
        f'<path class="series" d="{"".join(path)}" stroke="var(--{item.colour})">'
        f"<title>{item.name}</title></path>"
    )


def _grid(up: _Scale) -> str:
    step = _round_step((up.high - up.low) / 5)
    digits = max(0, -math.floor(math.log10(step)))
    first = math.ceil(up.low / step)
    parts = []
    for i in range(first, math.floor(up.high / step) + 1):
        y = up(i * step)
        parts.append(_rule("grid", y))
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{i * step:.{digits}f}</text>'
        )
    return "".join(parts)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _rule(kind: str, y: float) -> str:
    return f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'


def _dates(across: _Scale, y: float) -> str:
    places = (
        (across.low, "start"),
        ((across.low + across.high) / 2, "middle"),
        (across.high, "end"),
    )
    hours = across.high - across.low < 3 * 86_400
    form = "%d %b %H:%M" if hours else "%d %b %Y"
    return "".join(
        f'<text x="{across(time):.0f}" y="{y}" text-anchor="{anchor}">'
        f"{datetime.fromtimestamp(time, UTC).strftime(form)}</text>"
        for time, anchor in places
    )


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)
