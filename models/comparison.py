"""A candidate beside the incumbent on live traffic: sums over impressions, and the rule.

Every impression is scored by both snapshots, so their losses are paired: of two snapshots that
differ little the losses do, too, however noisy clicks are. A snapshot is more sure of ads that it
chose itself than of ads that the other one chose, since it chose them for being sure. So the mean
difference is taken for the impressions of each side, and both sides count one half, however small
the candidate's share.

Looking again after every slice would make a fixed interval fail sooner or later. The interval here
holds at all looks together: the asymptotic confidence sequence of I. Waudby-Smith et al., arXiv
2103.06476 (theorem 2.2). There the mean of t observations of spread σ̂ lies with probability 1 − α
at every t within

    σ̂ √( 2(tρ² + 1) / (t²ρ²) · log(√(tρ² + 1) / α) )  =  SE √( (1 + 1/k) log((1 + k) / α²) ),

SE = σ̂/√t and k = tρ². Its ρ makes it tightest at a chosen t; here that is the smallest number of
clicks to judge by, and t is counted in clicks. For our two halved means, and for calibration, whose
standard error is that of right predictions, this is an approximation. Impressions of one page are
taken as independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from models.metrics import losses
from models.snapshot import Check
from models.types import Float32s, Float64s, Int64s


class Arm(msgspec.Struct, frozen=True):
    """Sums over the impressions that one side answered, both sides' scores of each.

    `spend_thousandths`: what advertisers pay, in thousandths of a micro; `loss_*`: log loss;
    `difference_squares`: of (candidate's − incumbent's loss)²; `predicted_*`: Σp; `variance_*`:
    Σp(1 − p). `not_finite`: impressions without a finite score by the candidate; the other sums
    leave them out.
    """

    impressions: int = 0
    clicks: int = 0
    spend_thousandths: int = 0
    loss_candidate: float = 0.0
    loss_incumbent: float = 0.0
    difference_squares: float = 0.0
    predicted_candidate: float = 0.0
    predicted_incumbent: float = 0.0
    variance_candidate: float = 0.0
    variance_incumbent: float = 0.0
    not_finite: int = 0


class Sums(msgspec.Struct, frozen=True):
    """Both sides of a comparison, by who answered. A shadow answers nothing."""

    candidate: Arm = Arm()
    incumbent: Arm = Arm()


class Rule(msgspec.Struct, frozen=True):
    """By what a canary is promoted or rolled back.

    `min_clicks`: nothing is judged before each side has as many clicks, or as many were predicted
    on the candidate's; `log_loss_limit`: how much worse the candidate's log loss may be, as part of
    the incumbent's; `calibration_low` and `calibration_high`: the band of Σ predicted / Σ clicks of
    what the candidate answered; `error_rate`: the probability that an equally good canary is ever
    rolled back, or one at the limit promoted; `longest_s`: seconds after which an undecided canary
    is rolled back.
    """

    min_clicks: int = 200
    log_loss_limit: float = 0.01
    calibration_low: float = 0.8
    calibration_high: float = 1.25
    error_rate: float = 0.05
    longest_s: float = 86_400.0


class Judgement(msgspec.Struct, frozen=True):
    """What the rule says now, with every figure that it looked at."""

    result: Literal["wait", "promote", "roll_back"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]


def arm_of(labels: Float32s, candidate: Float64s, incumbent: Float64s, spend: Int64s) -> Arm:
    """Sum n impressions: labels, pCTRs of both snapshots, thousandths paid for each, all [n]."""
    there = np.isfinite(candidate) & np.isfinite(incumbent)
    y, p, q = labels[there], candidate[there], incumbent[there]
    ours, theirs = losses(p, y), losses(q, y)
    return Arm(
        impressions=len(y),
        clicks=int(y.sum(dtype=np.float64)),
        spend_thousandths=int(spend[there].sum()),
        loss_candidate=float(ours.sum()),
        loss_incumbent=float(theirs.sum()),
        difference_squares=float(((ours - theirs) ** 2).sum()),
        predicted_candidate=float(p.sum()),
        predicted_incumbent=float(q.sum()),
        variance_candidate=float((p * (1 - p)).sum()),
        variance_incumbent=float((q * (1 - q)).sum()),
        not_finite=int((~np.isfinite(candidate)).sum()),
    )


def added(sums: Sequence[Sums]) -> Sums:
    """The sums over several slices."""
    return Sums(*(_added([getattr(one, side) for one in sums]) for side in Sums.__struct_fields__))


def _added(arms: Sequence[Arm]) -> Arm:
    return Arm(*(sum(getattr(arm, name) for arm in arms) for name in Arm.__struct_fields__))


def difference(sums: Sums) -> tuple[float, float]:
    """How much the candidate's log loss per impression is above the incumbent's, and the standard
    error: the mean over the sides that have impressions. NaN and infinity without any.
    """
    arms = [arm for arm in (sums.candidate, sums.incumbent) if arm.impressions]
    if not arms:
        return math.nan, math.inf
    means, variances = zip(*map(_mean_and_variance, arms), strict=True)
    return sum(means) / len(arms), math.sqrt(sum(variances)) / len(arms)


def _mean_and_variance(arm: Arm) -> tuple[float, float]:
    mean = (arm.loss_candidate - arm.loss_incumbent) / arm.impressions
    spread = max(arm.difference_squares / arm.impressions - mean**2, 0.0)
    return mean, spread / arm.impressions


def multiple(evidence: float, expected: float, error_rate: float) -> float:
    """How many standard errors either side hold at every look: the k-form above.

    `evidence`: clicks so far; `expected`: clicks at which it is to be tightest.
    """
    logarithm = -2 * math.log(error_rate)
    k = (logarithm + math.log(logarithm + 1)) * evidence / expected
    return math.sqrt((1 + 1 / k) * math.log((1 + k) / error_rate**2))


def judge(sums: Sums, rule: Rule, age_s: float, *, shadow: bool = False) -> Judgement:
    """Apply the rule to what was measured in `age_s` seconds.

    Of a shadow, which answers nothing, both figures are those of the incumbent's impressions.
    """
    broken = sums.candidate.not_finite + sums.incumbent.not_finite
    if broken:
        reason = f"{broken} impressions have no finite score by the candidate"
        check = Check("finite", float(broken), 0.0, False, reason)
        return Judgement("roll_back", (reason,), (check,))
    own = sums.incumbent if shadow else sums.candidate
    evidence = _evidence(own, sums.incumbent)
    if evidence < rule.min_clicks:
        return _too_few(evidence, rule, age_s)
    widths = multiple(evidence, rule.min_clicks, rule.error_rate / 2)  # two figures share it
    bad: list[str] = []
    checks = (_log_loss(sums, rule, widths, bad), _calibration(own, sums, rule, widths, bad))
    if bad:
        return Judgement("roll_back", tuple(bad), checks)
    if all(check.passed for check in checks):
        return Judgement("promote", ("log loss and calibration keep the limits",), checks)
    return _waiting(
        tuple(check.reason for check in checks if not check.passed), rule, age_s, checks
    )


def _evidence(own: Arm, incumbent: Arm) -> float:
    """Clicks of the side that has fewer. A candidate that nobody clicks has those it predicted."""
    ours = max(float(own.clicks), own.predicted_candidate)
    return min(ours, max(float(incumbent.clicks), incumbent.predicted_incumbent))


def _too_few(evidence: float, rule: Rule, age_s: float) -> Judgement:
    reason = f"{evidence:.0f} clicks so far, {rule.min_clicks} are needed on both sides"
    return _waiting((reason,), rule, age_s, ())


def _waiting(
    reasons: tuple[str, ...], rule: Rule, age_s: float, checks: tuple[Check, ...]
) -> Judgement:
    if age_s < rule.longest_s:
        return Judgement("wait", reasons, checks)
    late = f"undecided after {rule.longest_s:.0f} s, the longest that a canary runs"
    return Judgement("roll_back", (late, *reasons), checks)


def _log_loss(sums: Sums, rule: Rule, widths: float, bad: list[str]) -> Check:
    """Passed when it is surely below the limit, bad when it is surely above."""
    mean, error = difference(sums)
    scale = _incumbent_loss(sums)
    value, slack = mean / scale, widths * error / scale
    limit = rule.log_loss_limit
    if value - slack > limit:
        bad.append(
            f"log loss is {value:+.2%} ± {slack:.2%} of the incumbent's, the limit is {limit:+.2%}"
        )
    passed = bool(value + slack <= limit)
    reason = f"log loss is {value:+.2%} ± {slack:.2%} of the incumbent's: not surely below"
    reason += f" {limit:+.2%}"
    return Check("log_loss", value, limit, passed, "" if passed else reason)


def _incumbent_loss(sums: Sums) -> float:
    arms = [arm for arm in (sums.candidate, sums.incumbent) if arm.impressions]
    return sum(arm.loss_incumbent / arm.impressions for arm in arms) / len(arms)


def _calibration(own: Arm, sums: Sums, rule: Rule, widths: float, bad: list[str]) -> Check:
    """Passed inside the band, bad when surely outside, unless nearer to 1 than the incumbent's.

    The exception lets a deployment leave a badly calibrated incumbent.
    """
    ours = _ratio(own.predicted_candidate, own.clicks)
    theirs = _ratio(sums.incumbent.predicted_incumbent, sums.incumbent.clicks)
    slack = widths * math.sqrt(own.variance_candidate)
    low, high = rule.calibration_low * own.clicks, rule.calibration_high * own.clicks
    surely = own.predicted_candidate - slack > high or own.predicted_candidate + slack < low
    is_nearer = 0 < ours < math.inf and abs(math.log(ours)) < _distance(theirs)
    band = f"{rule.calibration_low:g} to {rule.calibration_high:g}"
    reason = f"calibration is {ours:.3g}, the band is {band}"
    if surely and not is_nearer:
        bad.append(reason)
    passed = rule.calibration_low <= ours <= rule.calibration_high or is_nearer
    limit = rule.calibration_high if ours > 1 else rule.calibration_low
    return Check("calibration", _json(ours), limit, passed, "" if passed else reason)


def _ratio(predicted: float, clicks: int) -> float:
    return predicted / clicks if clicks else math.inf


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Side(msgspec.Struct, frozen=True):
    """One snapshot's own figures: of what it answered, or a shadow of what the incumbent did.

    `log_loss` is per impression, None without any; `calibration` is Σp over clicks, None without.
    """

    impressions: int
    clicks: int
    spend_micros: int
    log_loss: float | None
    calibration: float | None


def sides(sums: Sums, *, shadow: bool = False) -> tuple[Side, Side]:
    """The candidate's side and the incumbent's."""
    theirs, ours = sums.incumbent, sums.incumbent if shadow else sums.candidate
    return (
        _side(ours, ours.loss_candidate, ours.predicted_candidate),
        _side(theirs, theirs.loss_incumbent, theirs.predicted_incumbent),
    )


def _side(arm: Arm, loss: float, predicted: float) -> Side:
    return Side(
        arm.impressions,
        arm.clicks,
        arm.spend_thousandths // 1000,
        loss / arm.impressions if arm.impressions else None,
        predicted / arm.clicks if arm.clicks else None,
    )
