"""The charts of the pages."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.pages.axes import HEIGHT, dated, numbered
from jobs.pages.charts import Dot, Dots, Line, chart, dots, middle

VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=5)


def _parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn)  # noqa: S314


def test_a_chart_leaves_gaps_where_a_figure_is_undefined() -> None:
    """A missing value ends the line; the next one starts another."""
    places = range(5)
    drawn = chart(places, [Line("blue", "x", [1.0, 2.0, None, 2.0, 1.0])], numbered(places))
    (path,) = re.findall(r'class="series" d="([^"]+)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 2


@given(VALUES, st.booleans(), st.booleans())
def test_a_chart_is_always_well_formed(
    values: list[float | None], marked: bool, clipped: bool
) -> None:
    """One point, equal values, gaps only: the markup parses, holds no NaN, stays in its frame."""
    times, lines = [float(i) for i in range(len(values))], [Line("blue", "<x>", values)]
    bounds = {"within": middle(lines)} if clipped else {}
    drawn = chart(times, lines, dated(times), mark=1.0 if marked else None, **bounds)
    _parsed(drawn)
    assert "nan" not in drawn
    heights = re.findall(r"[ML][\d.]+ ([\d.-]+)", drawn)
    assert all(0 <= float(y) <= HEIGHT for y in heights)


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=5), st.sampled_from([None, 1.0]))
def test_a_logarithmic_chart_has_levels(values: list[float], mark: float | None) -> None:
    """However far its values reach, there is a number to read them by, and the mark is inside."""
    places = range(len(values))
    lines = [Line("blue", "x", values)]
    drawn = chart(places, lines, numbered(places), is_log=True, mark=mark)
    _parsed(drawn)
    assert drawn.count('class="grid"') >= 1
    if mark is not None:
        ((y),) = re.findall(r'class="mark" d="M[\d.]+ ([\d.]+)H', drawn)
        assert 0 < float(y) < HEIGHT


@given(VALUES, st.booleans(), st.booleans())
def test_dots_are_always_well_formed(
    values: list[float | None], reaching: bool, shaded: bool
) -> None:
    """A circle for each value that there is, inside of the drawing with all of its whisker."""
    made = [
        Dot(value, (value - 1, value + 2) if reaching and value is not None else None)
        for value in values
    ]
    drawn = dots(
        ["<x>"] * len(made), [Dots("blue", "y", made)], 1.0, (0.9, 1.1) if shaded else None
    )
    if all(value is None for value in values):
        assert "<svg" not in drawn
        return
    _parsed(drawn)
    heights = [float(y) for y in re.findall(r'(?:cy="|M[\d.]+ |V)([\d.-]+)', drawn)]
    assert all(0 <= y <= HEIGHT for y in heights)
    assert drawn.count("<circle") == sum(value is not None for value in values)


def test_a_whisker_ends_where_the_scale_says() -> None:
    """High is up, and a value half way along its whisker is drawn there."""
    drawn = dots(["one"], [Dots("blue", "y", [Dot(1.0, (0.0, 2.0))])])
    ((low, high),) = re.findall(r'class="whisker" d="M[\d.]+ ([\d.]+)V([\d.]+)"', drawn)
    (middle,) = re.findall(r'cy="([\d.]+)"', drawn)
    assert float(low) > float(middle) > float(high)
    assert float(middle) == pytest.approx((float(low) + float(high)) / 2, abs=0.2)
