"""The charts and texts of a replay's page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.replay.chart import Dot, Dots, Series, chart, dots
from jobs.replay.markup import difference, held
from jobs.replay.report import Intervals, Quality

VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=5)


def _parsed(drawn: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawn.replace("<span class=key", '<span class="key"'))  # noqa: S314


def test_a_chart_leaves_gaps_where_a_figure_is_undefined() -> None:
    """A missing value ends the line; the next one starts another."""
    drawn = chart([0.0, 1.0, 2.0, 3.0, 4.0], [Series("a", "x", [1.0, 2.0, None, 2.0, 1.0])])
    (path,) = re.findall(r'class="series" d="([^"]+)"', drawn)
    assert path.count("M") == 2
    assert path.count("L") == 2


@given(VALUES, st.booleans())
def test_a_chart_is_always_well_formed(values: list[float | None], marked: bool) -> None:
    """One point, equal values, gaps only: the markup parses and holds no NaN."""
    times = [float(i) for i in range(len(values))]
    drawn = chart(times, [Series("a", "x", values)], 1.0 if marked else None)
    _parsed(drawn)
    assert "nan" not in drawn


@given(VALUES, st.booleans(), st.booleans())
def test_dots_are_always_well_formed(
    values: list[float | None], reaching: bool, shaded: bool
) -> None:
    """A circle for each value that there is, inside of the drawing with all of its whisker."""
    made = [
        Dot(value, (value - 1, value + 2) if reaching and value is not None else None)
        for value in values
    ]
    drawn = dots(["<x>"] * len(made), [Dots("a", "y", made)], 1.0, (0.9, 1.1) if shaded else None)
    if all(value is None for value in values):
        assert "<svg" not in drawn
        return
    _parsed(drawn)
    heights = [float(y) for y in re.findall(r'(?:cy="|M[\d.]+ |V)([\d.-]+)', drawn)]
    assert all(0 <= y <= 260 for y in heights)
    assert drawn.count("<circle") == sum(value is not None for value in values)


def test_a_whisker_ends_where_the_scale_says() -> None:
    """High is up, and a value half way along its whisker is drawn there."""
    drawn = dots(["one"], [Dots("a", "y", [Dot(1.0, (0.0, 2.0))])])
    ((low, high),) = re.findall(r'class="whisker" d="M[\d.]+ ([\d.]+)V([\d.]+)"', drawn)
    (middle,) = re.findall(r'cy="([\d.]+)"', drawn)
    assert float(low) > float(middle) > float(high)
    assert float(middle) == pytest.approx((float(low) + float(high)) / 2, abs=0.2)


@pytest.mark.parametrize(("holds", "shown"), [(True, "✓"), (False, "✗"), (None, "")])
def test_a_calibration_is_marked(holds: bool | None, shown: str) -> None:
    """A tick, a cross, or nothing where there is no calibration."""
    quality = Quality(9, 1, 1.0, 0.5, 0.1, 1.0, 0.9, holds, Intervals(None, None, None))
    assert re.sub("<[^>]+>", "", held(quality)).strip() == shown


def test_a_difference_has_signs() -> None:
    """Both directions are told by a sign; without an interval there are no brackets."""
    assert difference(-0.001, (-0.002, 0.0)) == "−0.00100 (−0.00200 to +0.00000)"
    assert difference(0.5, None) == "+0.50000"
