"""The gate passes what keeps every limit and names what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.gate import Evidence, extend_window, judge, total, window_chunk
from models.schema import GateSettings
from models.snapshot import WindowChunk

LIMITS = GateSettings()
GOOD_CHUNK = WindowChunk(
    events=10_000,
    clicks=500.0,
    loss=1900.0,
    loss_incumbent=1910.0,
    loss_rate=2000.0,
    difference_squares=40.0,
    predicted=505.0,
    predicted_incumbent=520.0,
    variance=450.0,
)
GOOD = Evidence(
    finite=True,
    largest_ratio=1.1,
    largest_published_ratio=1.0,
    score_low=-9.0,
    score_high=3.0,
    promise_low=-12.0,
    promise_high=6.0,
    shrink=1.0,
    publishing_moved=0.001,
    probe_scores=np.full(8, -3.0, np.float32),
    incumbent_probe_scores=np.full(8, -3.1, np.float32),
    index_error=0.0,
    window=(GOOD_CHUNK,),
)


def failed(evidence: Evidence) -> list[str]:
    """The names of the checks that fail."""
    return [check.name for check in judge(evidence, LIMITS).checks if not check.passed]


def test_a_good_candidate_is_accepted() -> None:
    """With every value inside its limit the verdict is `accepted` and there are no reasons."""
    verdict = judge(GOOD, LIMITS)
    assert verdict.result == "accepted"
    assert verdict.reasons == ()


def test_a_shrunk_candidate_is_repaired() -> None:
    """A candidate whose promise was restored by shrinking says so."""
    assert judge(replace(GOOD, shrink=0.9), LIMITS).result == "repaired"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"finite": False}, "finite"),
        ({"largest_published_ratio": 1.01}, "published_norms"),
        ({"largest_ratio": 2.5}, "raw_norms"),
        ({"largest_ratio": float("nan")}, "raw_norms"),
        ({"score_high": 6.5}, "promise"),
        ({"score_low": -12.5}, "promise"),
        ({"publishing_moved": 0.5}, "projection_loss"),
        ({"probe_scores": np.full(8, 25.0, np.float32)}, "probe_scores"),
        ({"incumbent_probe_scores": np.full(8, 3.0, np.float32)}, "drift"),
        ({"index_error": 0.1}, "index"),
    ],
)
def test_each_check_refuses_on_its_own(change: dict[str, object], name: str) -> None:
    """One value over its limit refuses the candidate and is named with value and limit."""
    verdict = judge(replace(GOOD, **change), LIMITS)
    assert verdict.result == "refused"
    assert name in [check.name for check in verdict.checks if not check.passed]
    assert all(verdict.reasons)


def test_a_loss_clearly_above_the_incumbents_is_refused() -> None:
    """A mean paired difference above the limit by more than two standard errors refuses."""
    worse = replace_chunk(loss=2500.0, difference_squares=100.0)
    assert failed(replace(GOOD, window=(worse,))) == ["log_loss"]


def test_a_loss_that_is_not_a_number_is_refused_even_without_clicks() -> None:
    """No click is needed to see that predictions are not numbers."""
    broken = replace_chunk(loss=float("nan"), clicks=0.0)
    assert "log_loss" in failed(replace(GOOD, window=(broken,)))


def test_few_clicks_leave_loss_and_calibration_unjudged() -> None:
    """Below the minimum of clicks the window proves nothing, and the checks say so."""
    few = replace_chunk(clicks=3.0, loss=9000.0)
    verdict = judge(replace(GOOD, window=(few,)), LIMITS)
    assert verdict.result == "accepted"
    assert any("not judged" in check.reason for check in verdict.checks)


def test_calibration_outside_the_band_is_refused() -> None:
    """Predicting twice the clicks refuses a candidate whose incumbent predicted well."""
    off = replace_chunk(predicted=1000.0, predicted_incumbent=510.0)
    assert failed(replace(GOOD, window=(off,))) == ["calibration"]


def test_calibration_may_be_off_while_it_improves() -> None:
    """A line that leaves a wrong base rate is let through as long as it gets nearer to 1."""
    leaving = replace_chunk(predicted=1000.0, predicted_incumbent=2500.0)
    assert failed(replace(GOOD, window=(leaving,))) == []


def test_leaving_the_first_guess_is_no_drift() -> None:
    """However far the base rate was off, the first learned snapshot may move away from it."""
    assert failed(replace(GOOD, incumbent_probe_scores=None)) == []


def test_the_window_forgets_what_it_does_not_need() -> None:
    """The oldest chunks go as soon as the rest has enough clicks and events."""
    window: tuple[WindowChunk, ...] = ()
    for _ in range(10):
        window = extend_window(window, GOOD_CHUNK, LIMITS)
    assert len(window) == 3
    assert total(window).events == 30_000


def test_window_sums_are_those_of_the_definition() -> None:
    """Losses and sums of a two-event chunk, worked out by hand."""
    chunk = window_chunk(
        np.array([1, 0], np.float32),
        np.array([0.5, 0.25], np.float32),
        np.array([0.5, 0.5]),
        0.5,
    )
    assert chunk.loss == pytest.approx(np.log(2) - np.log(0.75))
    assert chunk.loss_incumbent == pytest.approx(2 * np.log(2))
    assert (chunk.events, chunk.clicks, chunk.predicted) == (2, 1.0, 0.75)
    assert chunk.variance == pytest.approx(0.25 + 0.1875)


def replace_chunk(**changes: float) -> WindowChunk:
    """The good chunk with some sums changed."""
    values = {name: getattr(GOOD_CHUNK, name) for name in WindowChunk.__struct_fields__}
    return WindowChunk(**(values | changes))
