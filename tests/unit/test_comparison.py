"""The rule of a canary: what it promotes, what it rolls back, how often it errs over many looks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.comparison import (
    Arm,
    Rule,
    Sums,
    added,
    arm_of,
    difference,
    judge,
    multiple,
    sides,
)
from models.metrics import losses
from models.types import Float32s, Float64s

RULE = Rule(min_clicks=200)
RATE = 0.05


def drawn(
    generator: np.random.Generator, count: int, factor: float = 1.0, noise: float = 0.0
) -> Arm:
    """Impressions with known click probabilities, p for the incumbent; the candidate multiplies p
    by `factor` and its odds by a lognormal of that spread."""
    p = np.clip(RATE * np.exp(generator.normal(0, 0.5, count)), 1e-4, 0.9)
    labels = (generator.random(count) < p).astype(np.float32)
    ours = np.clip(p * factor * np.exp(generator.normal(0, noise, count)), 1e-6, 1 - 1e-6)
    return arm_of(labels, ours, p, np.ones(count, np.int64))


def sums_of(
    generator: np.random.Generator, count: int, factor: float = 1.0, noise: float = 0.0
) -> Sums:
    """A tenth of `count` answered by the candidate."""
    own = drawn(generator, count // 10, factor, noise)
    return Sums(own, drawn(generator, count, factor, noise))


def test_an_equal_candidate_is_promoted() -> None:
    """As soon as there are clicks enough."""
    found = judge(sums_of(np.random.default_rng(1), 60_000, noise=0.02), RULE, 0.0)
    assert found.result == "promote"
    assert [check.name for check in found.checks] == ["log_loss", "calibration"]


def test_nothing_is_judged_before_there_are_clicks() -> None:
    """Neither side may have too few."""
    few = sums_of(np.random.default_rng(1), 6000)
    found = judge(few, RULE, 0.0)
    assert found.result == "wait"
    assert "200 are needed" in found.reasons[0]
    own = drawn(np.random.default_rng(2), 60_000)
    assert judge(Sums(own, few.candidate), RULE, 0.0).result == "wait"


def test_a_noisy_candidate_is_rolled_back_for_its_log_loss() -> None:
    """The reason has the figures and the limit."""
    found = judge(sums_of(np.random.default_rng(3), 100_000, noise=0.8), RULE, 0.0)
    assert found.result == "roll_back"
    assert "log loss is +" in found.reasons[0]
    assert "+1.00%" in found.reasons[0]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_candidate_that_predicts_wrongly_is_rolled_back_for_its_calibration(
    factor: float,
) -> None:
    """Also with a limit on log loss that lets it pass."""
    lax = Rule(min_clicks=200, log_loss_limit=10.0)
    found = judge(sums_of(np.random.default_rng(4), 100_000, factor), lax, 0.0)
    assert found.result == "roll_back"
    assert "calibration is" in found.reasons[0]


def test_a_candidate_that_nobody_clicks_is_rolled_back() -> None:
    """Predicted clicks are evidence enough: waiting for real ones would take for ever."""
    generator = np.random.default_rng(5)
    predicted = np.full(8000, RATE)
    own = arm_of(np.zeros(8000, np.float32), predicted, predicted, np.zeros(8000, np.int64))
    found = judge(Sums(own, drawn(generator, 50_000)), RULE, 0.0)
    assert found.result == "roll_back"
    assert "calibration is inf" in found.reasons[0]


def test_a_badly_calibrated_incumbent_can_be_left() -> None:
    """A candidate nearer to 1 than it is promoted though both are outside the band."""
    generator = np.random.default_rng(6)

    def arm(count: int) -> Arm:
        p = np.full(count, RATE)
        labels = (generator.random(count) < p).astype(np.float32)
        return arm_of(labels, p * 1.4, p * 2.0, np.ones(count, np.int64))

    assert judge(Sums(arm(30_000), arm(90_000)), RULE, 0.0).result == "promote"


def test_an_undecided_canary_is_rolled_back_at_last() -> None:
    """Whatever keeps it from being judged, it does not run for ever."""
    found = judge(Sums(), RULE, RULE.longest_s)
    assert found.result == "roll_back"
    assert "undecided" in found.reasons[0]


def test_one_score_that_is_not_finite_is_enough() -> None:
    """It is counted, left out of the sums, and ends the canary."""
    scores = np.array([0.1, np.nan, 0.3])
    arm = arm_of(np.zeros(3, np.float32), scores, np.full(3, 0.1), np.ones(3, np.int64))
    assert (arm.impressions, arm.not_finite, math.isfinite(arm.loss_candidate)) == (2, 1, True)
    assert judge(Sums(arm), RULE, 0.0).result == "roll_back"


def test_both_sides_count_one_half() -> None:
    """However small the share: the mean of the two means, with its standard error."""
    generator = np.random.default_rng(7)
    p, q = generator.uniform(0.01, 0.3, 900), generator.uniform(0.01, 0.3, 900)
    labels: Float32s = (generator.random(900) < p).astype(np.float32)
    spend = np.ones(900, np.int64)
    sums = Sums(
        arm_of(labels[:100], q[:100], p[:100], spend[:100]),
        arm_of(labels[100:], q[100:], p[100:], spend[100:]),
    )
    each: Float64s = losses(q, labels) - losses(p, labels)
    mean, error = difference(sums)
    assert mean == pytest.approx((each[:100].mean() + each[100:].mean()) / 2)
    variance = each[:100].var() / 100 + each[100:].var() / 800
    assert error == pytest.approx(math.sqrt(variance) / 2)


def test_a_shadow_is_measured_on_the_incumbents_impressions() -> None:
    """It answers nothing, so both sides have the same impressions and clicks."""
    sums = Sums(incumbent=drawn(np.random.default_rng(8), 60_000))
    ours, theirs = sides(sums, shadow=True)
    assert (ours.impressions, ours.clicks) == (theirs.impressions, theirs.clicks)
    assert ours.log_loss == pytest.approx(theirs.log_loss)
    assert judge(sums, RULE, 0.0, shadow=True).result == "promote"
    assert judge(sums, RULE, 0.0).result == "wait"


def test_slices_add_up_to_the_whole() -> None:
    """Measuring in pieces gives what measuring at once gives."""
    generator = np.random.default_rng(9)
    p = generator.uniform(0.01, 0.2, 500)
    labels = (generator.random(500) < p).astype(np.float32)
    spend = generator.integers(0, 1000, 500)
    whole = arm_of(labels, p, p / 2, spend)
    pieces = added(
        [Sums(arm_of(labels[rows], p[rows], p[rows] / 2, spend[rows])) for rows in _thirds(500)]
    ).candidate
    for name in Arm.__struct_fields__:
        assert getattr(pieces, name) == pytest.approx(getattr(whole, name)), name


def _thirds(count: int) -> list[slice]:
    return [slice(start, start + -(-count // 3)) for start in range(0, count, -(-count // 3))]


def test_the_multiple_is_about_three_standard_errors() -> None:
    """Tightest near the chosen evidence, slowly wider after it, never below a fixed interval."""
    found = [multiple(clicks, 200, 0.05) for clicks in (50, 100, 200, 400, 2000, 20_000)]
    assert found[2] == pytest.approx(2.99, abs=0.05)
    assert min(found) > 1.96
    assert found[5] < 4.0


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_an_equally_good_candidate_is_seldom_rolled_back_over_many_looks(noise: float) -> None:
    """Looked at forty times, equal candidates err at most at the error rate.

    Both snapshots' errors are drawn alike, so neither is better.
    """
    generator, wrong, runs = np.random.default_rng(10), 0, 150
    rule = Rule(min_clicks=50, log_loss_limit=0.0, error_rate=0.1)
    for _ in range(runs):
        sums = Sums()
        for _ in range(40):
            sums = added([sums, Sums(_equal(generator, 300, noise), _equal(generator, 900, noise))])
            if judge(sums, rule, 0.0).result == "roll_back":
                wrong += 1
                break
    assert wrong <= 0.1 * runs


def _equal(generator: np.random.Generator, count: int, noise: float) -> Arm:
    p = np.clip(RATE * np.exp(generator.normal(0, 0.5, count)), 1e-4, 0.9)
    labels = (generator.random(count) < p).astype(np.float32)
    ours, theirs = (
        np.clip(p * np.exp(generator.normal(0, noise, count)), 1e-6, 0.99) for _ in "ab"
    )
    return arm_of(labels, ours, theirs, np.ones(count, np.int64))
