"""The texts of a replay's page."""

from __future__ import annotations

import re

import pytest

from jobs.replay.quality_table import difference, held
from jobs.replay.report import Intervals, Quality


@pytest.mark.parametrize(("holds", "shown"), [(True, "✓"), (False, "✗"), (None, "")])
def test_a_calibration_is_marked(holds: bool | None, shown: str) -> None:
    """A tick, a cross, or nothing where there is no calibration."""
    quality = Quality(9, 1, 1.0, 0.5, 0.1, 1.0, 0.9, holds, Intervals(None, None, None))
    assert re.sub("<[^>]+>", "", held(quality)).strip() == shown


def test_a_difference_has_signs() -> None:
    """Both directions are told by a sign; without an interval there are no brackets."""
    assert difference(-0.001, (-0.002, 0.0)) == "−0.00100 (−0.00200 to +0.00000)"
    assert difference(0.5, None) == "+0.50000"
