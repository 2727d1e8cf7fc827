"""The frame of a chart: where values stand in the drawing, its levels and the ticks below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 84, 14, 20, 34

Tick = tuple[float, str]
"""A place along the bottom and the text below it."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Maps values to the drawing: x over [first, last], y over [low, high] or their logarithms."""

    first: float
    last: float
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False

    def x(self, value: float) -> float:
        """From the left; in the middle where all places are one."""
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """From the top; kept inside the drawing."""
        low, high, at = (self._scaled(one) for one in (self.low, self.high, value))
        share = min(max((at - low) / (high - low or 1.0), 0.0), 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.is_log else value


def around(first: float, last: float, low: float, high: float, *, is_log: bool = False) -> Axes:
    """Axes that leave some room below `low` and above `high`."""
    if is_log:
        return Axes(first, last, low / 1.15, high * 1.15, is_log=True)
    margin = 0.07 * (high - low) or 0.1
    return Axes(first, last, low - margin, high + margin)


def rule(kind: str, y: float) -> str:
    """A level across the whole drawing."""
    return f'<path class="{kind}" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'


def levels(axes: Axes) -> str:
    """Grid lines at round values, each with its value."""
    return "".join(
        rule("grid", axes.y(value))
        + f'<text x="{LEFT - 8}" y="{axes.y(value) + 4:.1f}" text-anchor="end">{text}</text>'
        for value, text in _round(axes)
    )


def _round(axes: Axes) -> list[Tick]:
    """Powers of ten where there are several, otherwise round steps: few powers say too little."""
    return _decades(axes) if axes.is_log and axes.high > 10 * axes.low else _steps(axes)


def _steps(axes: Axes) -> list[Tick]:
    """Some two to six round values at equal distances: a step of 1, 2 or 5 × 10ⁿ."""
    least = (axes.high - axes.low) / 6
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)
    digits = max(0, -math.floor(math.log10(step)))
    numbers = range(math.ceil(axes.low / step), math.floor(axes.high / step) + 1)
    return [(number * step, f"{number * step:,.{digits}f}") for number in numbers]


def _decades(axes: Axes) -> list[Tick]:
    powers = range(math.floor(math.log10(axes.low)), math.ceil(math.log10(axes.high)) + 1)
    every = max(1, len(powers) // 5)
    factors = (1, 2, 5) if len(powers) < 4 else (1,)
    values = [factor * 10.0**power for power in powers[::every] for factor in factors]
    return [(value, f"{value:,.4g}") for value in values if axes.low <= value <= axes.high]


def across(axes: Axes, ticks: Sequence[Tick], height: float = HEIGHT) -> str:
    """The ticks' texts; those at the ends stay inside."""
    return "".join(
        f'<text x="{axes.x(place):.0f}" y="{height - 8}" text-anchor="{_anchor(axes, place)}">'
        f"{escape(text)}</text>"
        for place, text in ticks
    )


def _anchor(axes: Axes, place: float) -> str:
    return "start" if place == axes.first else "end" if place == axes.last else "middle"


def numbered(places: Sequence[float]) -> list[Tick]:
    """The first, middle and last place by their numbers."""
    return [(place, f"{place:g}") for place in (places[0], places[len(places) // 2], places[-1])]


def dated(times: Sequence[float]) -> list[Tick]:
    """The first, middle and last of times in epoch seconds: dates, of few days with the hour."""
    first, last = times[0], times[-1]
    form = "%d %b %H:%M" if last - first < 3 * 86_400 else "%d %b %Y"
    return [
        (time, datetime.fromtimestamp(time, UTC).strftime(form))
        for time in (first, (first + last) / 2, last)
    ]
