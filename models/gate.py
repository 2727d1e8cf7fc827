"""The gate: every check a candidate must pass before it may serve, with values and limits.

Losses are progressive: the candidate's line scored each event of a chunk before it learned it, the
incumbent scored the whole chunk before any of it was learned. Both are honest predictions, and
their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.metrics import losses
from models.schema import GateSettings
from models.snapshot import Check, Verdict, WindowChunk
from models.types import Float32s, Float64s

NORM_TOLERANCE = 1e-5
"""Slack of a published norm over its radius: the rounding of a float32 vector."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate judges.

    `largest_ratio` and `largest_published_ratio`: largest norm over its radius before and after
    projection; `score_low`, `score_high`: the certified range of s; `promise_low`, `promise_high`:
    the promised one; `shrink`: the factor by which a repair shrank scores, 1 for none;
    `publishing_moved`: log loss on the chunk of what is published, projected and repaired, minus
    that of the raw model or, after a repair, of the incumbent if that is larger; `probe_scores`,
    `incumbent_probe_scores`: float32 [m], the latter None for an incumbent that has learned nothing
    yet; `index_error`: largest difference between an indexed ad's vector and the arrays; `window`:
    sums over recent chunks, this one last.
    """

    finite: bool
    largest_ratio: float
    largest_published_ratio: float
    score_low: float
    score_high: float
    promise_low: float
    promise_high: float
    shrink: float
    publishing_moved: float
    probe_scores: Float32s
    incumbent_probe_scores: Float32s | None
    index_error: float
    window: tuple[WindowChunk, ...]


def judge(evidence: Evidence, limits: GateSettings) -> Verdict:
    """Run every check; refused if any fails, repaired if scores had to be shrunk."""
    checks = (
        _finite(evidence),
        _at_most(
            "published_norms",
            evidence.largest_published_ratio,
            1 + NORM_TOLERANCE,
            "a published vector is longer than its radius",
        ),
        _at_most(
            "raw_norms",
            evidence.largest_ratio,
            limits.violation_limit,
            "the trainer's raw vectors have left their radii too far",
        ),
        _promise(evidence),
        _at_most(
            "projection_loss",
            evidence.publishing_moved,
            limits.projection_limit,
            "projection and repair cost too much log loss",
        ),
        _log_loss(evidence.window, limits),
        _calibration(evidence.window, limits),
        _drift(evidence, limits),
        _at_most(
            "probe_scores",
            _largest(evidence.probe_scores),
            limits.score_limit,
            "a probe impression's score is extreme",
        ),
        _at_most("index", evidence.index_error, 1e-4, "index and arrays disagree"),
    )
    if not all(check.passed for check in checks):
        return Verdict("refused", checks)
    return Verdict("repaired" if evidence.shrink < 1 else "accepted", checks)


def window_chunk(
    labels: Float32s, predicted: Float32s, incumbent: Float64s, rate: float
) -> WindowChunk:
    """Sum one chunk: labels, progressive and incumbent pCTR, each [n]; `rate` before the chunk."""
    ours, theirs = losses(predicted, labels), losses(incumbent, labels)
    constant = losses(np.full(len(labels), rate), labels)
    wide = np.asarray(predicted, np.float64)
    return WindowChunk(
        events=len(labels),
        clicks=float(labels.sum(dtype=np.float64)),
        loss=float(ours.sum()),
        loss_incumbent=float(theirs.sum()),
        loss_rate=float(constant.sum()),
        difference_squares=float(((ours - theirs) ** 2).sum()),
        predicted=float(wide.sum()),
        predicted_incumbent=float(incumbent.sum()),
        variance=float((wide * (1 - wide)).sum()),
    )


def extend_window(
    window: Sequence[WindowChunk], chunk: WindowChunk, limits: GateSettings
) -> tuple[WindowChunk, ...]:
    """Append a chunk and drop the oldest while the rest still has enough events and clicks."""
    kept = [*window, chunk]
    while len(kept) > 1 and _covers(kept[1:], limits):
        kept.pop(0)
    return tuple(kept)


def total(window: Sequence[WindowChunk]) -> WindowChunk:
    """The sums over all chunks of a window."""
    names = WindowChunk.__struct_fields__
    return WindowChunk(*(sum(getattr(chunk, name) for chunk in window) for name in names))


def _covers(window: Sequence[WindowChunk], limits: GateSettings) -> bool:
    sums = total(window)
    return sums.clicks >= limits.window_clicks and sums.events >= limits.window_events // 2


def _at_most(name: str, value: float, limit: float, fault: str) -> Check:
    passed = bool(value <= limit)  # false for NaN too
    return Check(name, _json(value), limit, passed, _because(passed, fault, value, limit))


def _because(passed: bool, fault: str, value: float, limit: float) -> str:
    return "" if passed else f"{fault}: {value:.6g}, the limit is {limit:.6g}"


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite(evidence: Evidence) -> Check:
    reason = "" if evidence.finite else "a parameter is not a finite number"
    return Check("finite", None, None, evidence.finite, reason)


def _promise(evidence: Evidence) -> Check:
    """How far the certified range, after any repair, leaves the promise; it may not at all."""
    low, high = evidence.score_low, evidence.score_high
    promised = (evidence.promise_low, evidence.promise_high)
    over = max(high - promised[1], promised[0] - low)
    passed = bool(promised[0] <= low and high <= promised[1])  # false for NaN too
    fault = (
        f"certified scores from {low:.4g} to {high:.4g} leave the promise, "
        f"{promised[0]:.4g} to {promised[1]:.4g}"
    )
    return Check("promise", _json(over), 0.0, passed, "" if passed else fault)


def _log_loss(window: tuple[WindowChunk, ...], limits: GateSettings) -> Check:
    """The mean paired difference, less two standard errors, against the limit."""
    sums = total(window)
    if sums.clicks < limits.window_clicks and math.isfinite(sums.loss):
        return _too_few("log_loss", sums.clicks, limits)
    mean = (sums.loss - sums.loss_incumbent) / max(sums.events, 1)
    spread = math.sqrt(max(sums.difference_squares / max(sums.events, 1) - mean**2, 0.0))
    worse = mean - 2 * spread / math.sqrt(max(sums.events, 1))
    return _at_most(
        "log_loss",
        worse,
        limits.log_loss_limit,
        "log loss per event is worse than the incumbent's on the rolling window",
    )


def _calibration(window: tuple[WindowChunk, ...], limits: GateSettings) -> Check:
    """Σ predicted / Σ observed inside the band, or nearer to 1 than the incumbent's.

    The second clause lets a deployment leave a badly set base rate.
    """
    sums = total(window)
    if sums.clicks < limits.window_clicks:
        return _too_few("calibration", sums.clicks, limits)
    ours, theirs = sums.predicted / sums.clicks, sums.predicted_incumbent / sums.clicks
    slack = limits.calibration_errors * math.sqrt(sums.variance) / sums.clicks
    inside = limits.calibration_low - slack <= ours <= limits.calibration_high + slack
    passed = inside or (ours > 0 and abs(math.log(ours)) < abs(math.log(theirs)))
    limit = limits.calibration_high if ours > 1 else limits.calibration_low
    band = f"{limits.calibration_low:g} to {limits.calibration_high:g} and {slack:.3g} either side"
    fault = f"calibration on the rolling window is off: {ours:.4g}, the band is {band}"
    reason = "" if passed else fault
    return Check("calibration", _json(ours), limit, passed, reason)


def _too_few(name: str, clicks: float, limits: GateSettings) -> Check:
    reason = f"not judged: {clicks:.0f} clicks in the window, {limits.window_clicks} are needed"
    return Check(name, None, None, True, reason)


def _drift(evidence: Evidence, limits: GateSettings) -> Check:
    if evidence.incumbent_probe_scores is None:
        reason = "not judged: the incumbent is the first snapshot, which only has a guessed rate"
        return Check("drift", None, None, True, reason)
    moved = evidence.probe_scores.astype(np.float64) - evidence.incumbent_probe_scores
    value = float(np.sqrt(np.mean(moved**2))) if len(moved) else 0.0
    return _at_most("drift", value, limits.drift_limit, "scores of the probe impressions moved far")


def _largest(scores: Float32s) -> float:
    return float(np.abs(scores).max()) if len(scores) else 0.0
