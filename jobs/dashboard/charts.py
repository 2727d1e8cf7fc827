"""Charts for the bundled ECharts: options in, no script. Colours are those of the style sheet.

Drawn as SVG, so that a colour may be a variable of the style sheet and follows light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from jobs.dashboard.parts import box, prose
from jobs.dashboard.style import FONT

Options = dict[str, Any]
Points = Sequence[tuple[float, float | None]]
_NOTHING = "Nothing to draw yet."
_INK, _SOFT, _LINE, _CARD = "var(--ink)", "var(--soft)", "var(--line)", "var(--card)"


@dataclass(frozen=True, slots=True)
class Line:
    """One line over time: points of (seconds since 1970, value or None for a gap)."""

    name: str
    colour: str
    points: Points
    is_dashed: bool = False
    is_filled: bool = False
    is_stepped: bool = False
    has_dots: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark on a time line: when (seconds since 1970), of which group, and what it says."""

    at_s: float
    group: str
    text: str


class Chart:
    """A chart that can be given new options; `label` says what it shows to those who cannot see.

    `none` stands there while there is nothing to draw.
    """

    def __init__(self, label: str, kind: str = "", none: str = _NOTHING) -> None:
        self._label, self._why = label, ""
        self._none = box("empty")
        self.explain(none)
        self._element = ui.echart({}, renderer="svg").classes(f"chart {kind}")
        self._element.props["role"] = "img"
        self._element.props["aria-label"] = label
        self._shown: Options | None = None

    def explain(self, none: str) -> None:
        """What stands there while there is nothing to draw."""
        if none != self._why:
            self._why = none
            self._none.clear()
            with self._none:
                prose(none)

    def show(self, options: Options, told: str = "") -> None:
        """Draw, if anything has changed; `told`: the newest value in words."""
        if options == self._shown:
            return
        self._shown = options
        is_empty = not any(_draws(one) for one in options["series"])
        self._none.set_visibility(is_empty)
        self._element.set_visibility(not is_empty)
        self._element.options.clear()
        self._element.options.update(options)
        self._element.props["aria-label"] = f"{self._label}. {told}" if told else self._label
        self._element.update()


def _draws(series: Options) -> bool:
    """Whether there is a point in it."""
    values = (one[1] if isinstance(one, list) else one for one in series["data"])
    return any(value is not None for value in values)


def over_time(
    lines: Sequence[Line],
    *,
    unit: str = "",
    bound: tuple[float, str] | None = None,
    low: float | None = 0.0,
    high: float | None = None,
) -> Options:
    """Lines over time in UTC; `bound`: a level that is drawn across, with its name."""
    series = [_series(line) for line in lines]
    if bound is not None and series:
        series[0]["markLine"] = _bound(*bound, axis="yAxis")
    return {
        **_base([line.name for line in lines]),
        "xAxis": {"type": "time", **_axis(), "splitLine": {"show": False}},
        "yAxis": _values(unit, low, high),
        "series": series,
    }


def by_hour(spent: Line, rate: Line, unit: str, other: str) -> Options:
    """Bars and a line over the same hours, each with an axis of its own; at least six hours."""
    options = over_time([spent, rate], unit=unit)
    options["grid"]["top"] = 56
    bar, line = options["series"]
    options["series"] = [
        {
            **{key: bar[key] for key in ("name", "data", "itemStyle", "emphasis")},
            "type": "bar",
            "barMaxWidth": 22,
        },
        {**line, "yAxisIndex": 1},
    ]
    options["yAxis"] = [
        options["yAxis"],
        {**_values(other, 0.0, None), "splitLine": {"show": False}},
    ]
    times = [at for at, _ in spent.points]
    options["xAxis"]["min"] = round(1000 * min(times[0], times[-1] - 5 * 3600))
    options["xAxis"]["max"] = round(1000 * (times[-1] + 1800))
    return options


def bars(
    names: Sequence[str], groups: Mapping[str, tuple[str, Sequence[float | None]]], unit: str = ""
) -> Options:
    """Bars side by side under each name; `groups`: by name a colour and a value each."""
    return {
        **_base(list(groups)),
        "xAxis": {"type": "category", "data": list(names), **_axis()},
        "yAxis": _values(unit, 0.0, None),
        "series": [
            {
                "name": name,
                "type": "bar",
                "data": list(values),
                "barMaxWidth": 28,
                "itemStyle": {"color": f"var(--{colour})", "borderRadius": [3, 3, 0, 0]},
                "emphasis": {"disabled": True},
            }
            for name, (colour, values) in groups.items()
        ],
    }


def ranges(
    names: Sequence[str],
    spans: Sequence[tuple[float | None, float | None, float | None]],
    bound: tuple[float, str],
) -> Options:
    """A bar from the median to 99 % and a dot at the largest for each name, and one bound.

    `spans`: median, 99 %, largest.
    """
    largest = max((one for span in spans for one in span if one is not None), default=0.0)
    base = _base(["median to 99 %", "largest"])
    base["grid"]["left"] = 12
    up_to = _bar("up to the median", [_rounded(low) for low, _, _ in spans], "transparent")
    between = [_rounded((high or 0.0) - (low or 0.0)) for low, high, _ in spans]
    shown = _bar("median to 99 %", between, "var(--blue)")
    shown["markLine"] = _bound(*bound, axis="xAxis")
    top = {
        "name": "largest",
        "type": "scatter",
        "symbolSize": 9,
        "data": [_rounded(one) for _, _, one in spans],
        "itemStyle": {"color": "var(--orange)"},
        "emphasis": {"disabled": True},
    }
    return {
        **base,
        "xAxis": _values("", 0.0, round(max(1.1 * bound[0], 1.08 * largest), 2)),
        "yAxis": {"type": "category", "data": list(names), "inverse": True, **_axis()},
        "series": [up_to, shown, top],
        "tooltip": {"show": False},
    }


def _bar(name: str, values: Sequence[float | None], colour: str) -> Options:
    """One part of stacked bars."""
    return {
        "name": name,
        "type": "bar",
        "stack": "norms",
        "data": list(values),
        "itemStyle": {"color": colour, "borderRadius": 3},
        "emphasis": {"disabled": True},
        "barWidth": 12,
    }


def strip(marks: Mapping[str, tuple[str, str, Sequence[Mark]]]) -> Options:
    """Marks along time in rows by group; `marks`: by name a colour, a shape and the marks."""
    rows = [name for name, (_, _, found) in marks.items() if found] or list(marks)
    return {
        **_base([]),
        "grid": {"left": 12, "right": 18, "top": 12, "bottom": 8, "containLabel": True},
        "xAxis": {"type": "time", **_axis(), "splitLine": {"show": False}},
        "yAxis": {"type": "category", "data": rows, "inverse": True, **_axis()},
        "series": [
            {
                "name": name,
                "type": "scatter",
                "symbol": shape,
                "symbolSize": 11,
                "data": [
                    {"value": [one.at_s * 1000, one.group], "name": one.text} for one in found
                ],
                "itemStyle": {"color": f"var(--{colour})"},
                "emphasis": {"disabled": True},
                "tooltip": {"formatter": "{b}"},
            }
            for name, (colour, shape, found) in marks.items()
        ],
        "tooltip": {**_tooltip(), "trigger": "item"},
    }


def spark(points: Points, colour: str) -> Options:
    """A line without axes."""
    return {
        "animation": False,
        "grid": {"left": 0, "right": 0, "top": 4, "bottom": 2},
        "xAxis": {"type": "time", "show": False},
        "yAxis": {"type": "value", "show": False, "min": 0},
        "series": [_series(Line("", colour, points, is_filled=True))],
        "tooltip": {"show": False},
    }


def _series(line: Line) -> Options:
    style: Options = {"color": f"var(--{line.colour})", "width": 2}
    if line.is_dashed:
        style["type"] = "dashed"
    series: Options = {
        "name": line.name,
        "type": "line",
        "data": [[round(at * 1000), _rounded(value)] for at, value in line.points],
        "showSymbol": line.has_dots,
        "symbolSize": 5,
        "lineStyle": style,
        "itemStyle": {"color": f"var(--{line.colour})"},
        "emphasis": {"disabled": True},
        "connectNulls": line.has_dots,
    }
    if line.is_stepped:
        series["step"] = "end"
    if line.is_filled:
        series["areaStyle"] = {"color": f"var(--{line.colour})", "opacity": 0.1}
    return series


def _base(names: Sequence[str]) -> Options:
    return {
        "animation": False,
        "useUTC": True,
        "textStyle": {"fontFamily": FONT, "color": _SOFT},
        "legend": {
            "show": len(names) > 1,
            "data": list(names),
            "left": 0,
            "top": 0,
            "itemWidth": 16,
            "itemHeight": 8,
            "textStyle": {"color": _SOFT},
            "inactiveColor": _LINE,
        },
        "grid": {
            **{"left": 8, "right": 18, "top": 36 if len(names) > 1 else 16, "bottom": 8},
            "containLabel": True,
        },
        "tooltip": _tooltip(),
    }


def _tooltip() -> Options:
    return {
        "trigger": "axis",
        "className": "echart-tip",
        "confine": True,
        "backgroundColor": _CARD,
        "borderColor": _LINE,
        "textStyle": {"color": _INK, "fontSize": 13},
        "axisPointer": {"lineStyle": {"color": _SOFT, "type": "dashed"}},
    }


def _axis() -> Options:
    return {
        "axisLine": {"lineStyle": {"color": _LINE}},
        "axisTick": {"show": False},
        "axisLabel": {"color": _SOFT, "hideOverlap": True},
    }


def _values(unit: str, low: float | None, high: float | None) -> Options:
    return {
        "type": "value",
        "name": unit,
        "nameTextStyle": {"color": _SOFT, "align": "left"},
        "min": low,
        "max": high,
        "scale": low is None,
        "splitNumber": 4,
        "splitLine": {"lineStyle": {"color": _LINE}},
        "axisLabel": {"color": _SOFT, "hideOverlap": True},
    }


def _bound(level: float, name: str, axis: str) -> Options:
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": "var(--bad)", "type": "dashed", "width": 1.5},
        "label": {"formatter": name, "color": "var(--bad)", "position": "insideEndTop"},
        "data": [{axis: level}],
    }


def _rounded(value: float | None) -> float | None:
    """Five significant digits: what a tooltip shows, and less to send."""
    return None if value is None else float(f"{value:.5g}")
