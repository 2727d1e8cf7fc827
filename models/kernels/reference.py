"""The training loop in slow NumPy, one event after the other: what the compiled one must equal.

Letters: j = ∂s/∂θ, e = p − y, π a precision, the prior's and the
evidence's, or a sum of gradients, V = Σ j²/π over every parameter of the event, h the
information that the event adds for j = 1, η a parameter's step per unit of gradient, μ a norm
constraint's multiplier, r a radius.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.kernels import (
    CONSTRAINTS,
    PRECISION_STEPS,
    SHRINKS,
    STEPS,
    Parameters,
    Rule,
    Shape,
    Values,
)
from models.offset import layout
from models.types import Float32s, Float64s, Int64s


def resolve(keys: Int64s, ids: Int64s) -> tuple[Int64s, Int64s]:
    """See `kernels.Kernel.resolve`."""
    row_of = {int(key): row for row, key in enumerate(keys)}
    rows = np.zeros(len(ids), np.int64)
    born: list[int] = []
    for at, key in enumerate(ids.tolist()):
        if key not in row_of:
            row_of[key] = len(row_of)
            born.append(at)
        rows[at] = row_of[key]
    return rows, np.array(born, np.int64)


def learn(
    shape: Shape,
    rule: Rule,
    user: Parameters,
    ad: Parameters,
    user_values: Values,
    ad_values: Values,
    label: Float32s,
    bias: Float64s,
    scores: Float32s,
) -> None:
    """See `kernels.Kernel.learn`."""
    for i in range(len(label)):
        user_rows = _rows(user_values, i, shape.user_features)
        ad_rows = _rows(ad_values, i, shape.ad_features)
        scores[i] = _event(shape, rule, user, ad, user_rows, ad_rows, float(label[i]), bias)


def _rows(values: Values, i: int, features: int) -> list[Int64s]:
    ptr = values.ptr[i * features : (i + 1) * features + 1]
    return [values.rows[ptr[f] : ptr[f + 1]] for f in range(features)]


def _event(
    shape: Shape,
    rule: Rule,
    user: Parameters,
    ad: Parameters,
    user_rows: list[Int64s],
    ad_rows: list[Int64s],
    y: float,
    bias: Float64s,
) -> tuple[float, float]:
    user_block = np.array([user.latent[rows].mean(axis=0) for rows in user_rows])
    ad_vector = np.sum([ad.latent[rows].mean(axis=0) for rows in ad_rows], axis=0)
    user_vector, user_slope = _user_side(shape, user_block, ad_vector)
    main = float(bias[0])
    main += sum(float(user.main[rows].mean()) for rows in user_rows)
    main += sum(float(ad.main[rows].mean()) for rows in ad_rows)
    inner = float(user_vector @ ad_vector)
    s = main + inner
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [(user, rows, user_slope[k], rule.user_radius) for k, rows in enumerate(user_rows)]
        parts += [(ad, rows, user_vector, rule.ad_radius) for rows in ad_rows]
        _update(rule, parts, bias, s, y)
    return main, inner


def _user_side(shape: Shape, block: Float32s, ad_vector: Float32s) -> tuple[Float32s, Float32s]:
    """ν_u [D] and ∂s/∂(each feature's vector) [K, d]."""
    where = layout(shape.user_features, shape.overlap, shape.alone)
    flat, pairs = block.ravel(), len(where.left)
    user_vector = np.concatenate((flat[where.left] * flat[where.right], flat[where.alone]))
    slope = np.zeros_like(flat)
    slope[where.left] = flat[where.right] * ad_vector[:pairs]
    slope[where.right] = flat[where.left] * ad_vector[:pairs]
    slope[where.alone] = ad_vector[pairs:]
    return user_vector, slope.reshape(block.shape)


Floats = Float32s | Float64s
Part = tuple[Parameters, Int64s, Float32s, float]


def _update(rule: Rule, parts: list[Part], bias: Float64s, s: float, y: float) -> None:
    e, h = _surprise(rule, parts, bias, s, y)
    for parameters, rows, slope, radius in parts:
        share = 1.0 / len(rows)
        for row in rows:
            one = slice(row, row + 1)
            feature = parameters.feature[row]
            main, evidence = parameters.main[one], parameters.main_evidence[one]
            _move(rule, main, evidence, parameters.main_prior[feature], share, e, h)
            latent, evidence = parameters.latent[row], parameters.latent_evidence[row]
            prior = parameters.latent_prior[feature]
            j = slope * np.float32(share)
            _move(rule, latent, evidence, prior, j, _clipped(rule, e, j), h, rule.latent_step)
            _constrain(rule, latent, evidence + prior, float(parameters.dual[row]), radius)
    _move(rule, bias[:1], bias[1:], 0.0, 1.0, e, h)


def _surprise(
    rule: Rule, parts: list[Part], bias: Float64s, s: float, y: float
) -> tuple[float, float]:
    """The e that every parameter steps by, and the information h that the event adds."""
    p = _sigmoid(s)
    if STEPS[rule.step] not in PRECISION_STEPS:
        return p - y, 0.0
    variance = _uncertainty(parts, bias)
    if STEPS[rule.step] == "linear":
        h = p * (1.0 - p)
        return (p - y) / (1.0 + variance * h), h / (1.0 + variance * h)
    landed = landing(s, variance, y)
    return landed - y, float(1.0 / (1.0 / np.float64(landed * (1.0 - landed)) + variance))


def _clipped(rule: Rule, e: float, j: Float32s) -> float:
    """The e at which a latent vector's gradient e·j is within the limit, if there is one."""
    norm = abs(e) * float(np.linalg.norm(j))
    if CONSTRAINTS[rule.constraint] != "clipping" or norm <= rule.clip_norm:
        return e
    return e * rule.clip_norm / norm


def _sigmoid(s: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.float64(s))))


def landing(score: float, variance: float, y: float) -> float:
    """pCTR at the score x that solves x = score − V(σ(x) − y), by bisection."""
    low, high = sorted((score, score - variance * (_sigmoid(score) - y)))
    for _ in range(100):
        middle = (low + high) / 2
        if middle - score + variance * (_sigmoid(middle) - y) > 0:
            high = middle
        else:
            low = middle
    return _sigmoid((low + high) / 2)


def _total(parameters: Parameters, rows: Int64s, kind: Literal["main", "latent"]) -> Floats:
    """The precisions of some rows: what data and prior say together."""
    evidence: Floats = getattr(parameters, f"{kind}_evidence")[rows]
    prior: Floats = getattr(parameters, f"{kind}_prior")[parameters.feature[rows]]
    return evidence + prior


def _uncertainty(parts: list[Part], bias: Float64s) -> float:
    """V, the score's prior variance."""
    total = 1.0 / float(bias[1])
    for parameters, rows, slope, _ in parts:
        share = 1.0 / len(rows)
        total += float((share**2 / _total(parameters, rows, "main")).sum())
        total += float(((slope * share) ** 2 / _total(parameters, rows, "latent")).sum())
    return total


def _move(
    rule: Rule,
    values: Floats,
    evidence: Floats,
    prior: Floats | float,
    j: Floats | float,
    e: float,
    h: float,
    factor: float = 1.0,
) -> None:
    """Step and grow, in place. The sums of gradients decide a step with the present one in."""
    if STEPS[rule.step] in PRECISION_STEPS:
        values -= e * j * rule.step_size * factor * _rate(rule, evidence + prior)
        evidence += h * j * j
        return
    evidence += (e * j) ** 2 if STEPS[rule.step] == "adagrad" else np.abs(e * j)
    values -= e * j * rule.step_size * factor * _rate(rule, evidence + prior)


def _rate(rule: Rule, accumulator: Floats) -> Floats:
    """A parameter's step per unit of slope and of step size."""
    if STEPS[rule.step] in PRECISION_STEPS:
        return np.asarray(1.0 / accumulator)
    if STEPS[rule.step] == "adagrad":
        return np.asarray(rule.learning_rate / np.sqrt(rule.alpha + accumulator))
    return np.asarray(rule.learning_rate / (rule.alpha + accumulator**rule.beta))


def _constrain(rule: Rule, latent: Floats, accumulator: Floats, dual: float, radius: float) -> None:
    """The shrink by μ, or the projection, of a vector that has taken its step."""
    ratio = float(latent.astype(np.float64) @ latent) / radius**2
    constraint, weight = CONSTRAINTS[rule.constraint], rule.weight_decay
    if constraint in ("dual", "augmented"):
        weight += dual
    if constraint == "augmented" and ratio > 1.0:
        weight += rule.violation_weight * (ratio - 1.0)
    if weight > 0.0:
        pull = rule.step_size * rule.latent_step * weight * _rate(rule, accumulator)
        latent *= 1.0 / (1.0 + pull) if SHRINKS[rule.shrink] == "implicit" else 1.0 - pull
    elif constraint == "projection" and ratio > 1.0:
        latent /= np.sqrt(ratio)
