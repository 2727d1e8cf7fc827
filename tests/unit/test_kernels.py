"""The compiled kernel equals its NumPy twin, and the door keeps out what neither survives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.kernels import (
    CONSTRAINTS,
    SHRINKS,
    STEPS,
    Kernel,
    Parameters,
    Rule,
    Shape,
    Values,
    check,
    compiled,
    reference,
)
from models.types import Float64s

SHAPE = Shape(3, 2, 2, 1)
TINY = Shape(2, 1, 1, 1)
# Each is compiled for itself: every step with every constraint, both forms of the shrink with each.
CASES = (
    *(
        (TINY, step, constraint, SHRINKS[(i + j) % 2])
        for i, step in enumerate(STEPS)
        for j, constraint in enumerate(CONSTRAINTS)
    ),
    (SHAPE, "curvature", "augmented", "implicit"),
    (Shape(1, 1, 0, 2), "curvature", "augmented", "implicit"),
)


def parameters(generator: np.random.Generator, rows: int, width: int) -> Parameters:
    def positive(*size: int) -> np.ndarray:
        return generator.uniform(0.5, 3.0, size).astype(np.float32)

    return Parameters(
        latent=generator.normal(0, 0.5, (rows, width)).astype(np.float32),
        main=generator.normal(0, 0.5, rows).astype(np.float32),
        latent_evidence=positive(rows, width),
        main_evidence=positive(rows),
        dual=generator.uniform(0, 0.5, rows).astype(np.float32),
        feature=np.arange(rows, dtype=np.uint8) // 3,
        latent_prior=positive(rows // 3, width),
        main_prior=positive(rows // 3),
    )


def values(generator: np.random.Generator, features: int, events: int, longest: int) -> Values:
    """Feature f's values are rows 3f, 3f + 1 and 3f + 2: those of one event are distinct."""
    rows = [
        3 * feature + generator.permutation(3)[: generator.integers(1, longest + 1)]
        for _ in range(events)
        for feature in range(features)
    ]
    ptr = np.cumsum([0] + [len(some) for some in rows])
    return Values(np.concatenate([np.zeros(0, np.int64), *rows]), ptr)


def rule(step: str, constraint: str, shrink: str = "implicit") -> Rule:
    codes = STEPS.index(step), CONSTRAINTS.index(constraint), SHRINKS.index(shrink)
    numbers = {"step_size": 1.0, "latent_step": 0.8, "learning_rate": 0.1}
    numbers |= {"alpha": 0.01, "beta": 0.5}
    limits = {"clip_norm": 0.15, "user_radius": 0.6, "ad_radius": 0.5}
    # The explicit shrink diverges under a strong pull, in both kernels but not to equal numbers.
    weights = {"weight_decay": 0.01, "violation_weight": 1.0 if shrink == "implicit" else 0.05}
    return Rule(*codes, **numbers, **limits, **weights)


def copied(given: Parameters) -> Parameters:
    return Parameters(*(array.copy() for array in given))


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    events=st.integers(0, 30),
    longest=st.integers(1, 3),
)
def test_compiled_equals_reference(
    case: tuple[Shape, str, str, str], seed: int, events: int, longest: int
) -> None:
    """Both kernels give the same scores and parameters, whatever the rule and the shape."""
    shape, *names = case
    generator = np.random.default_rng(seed)
    user = parameters(generator, 3 * shape.user_features, shape.user_width)
    ad = parameters(generator, 3 * shape.ad_features, shape.dimensions)
    user_values = values(generator, shape.user_features, events, longest)
    ad_values = values(generator, shape.ad_features, events, longest)
    label = generator.integers(0, 2, events).astype(np.float32)
    outcomes = []
    for kernel in (reference, compiled):
        sides = copied(user), copied(ad)
        bias, scores = np.array([-0.5, 0.25]), np.zeros((events, 2), np.float32)
        check(shape, *sides, user_values, ad_values, label)
        kernel.learn(
            shape,
            rule(*names),
            *sides,
            user_values,
            ad_values,
            label,
            bias,
            scores,
        )
        outcomes.append((*sides[0], *sides[1], bias, scores))
    for slow, fast in zip(*outcomes, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("precision", [1e-4, 0.01, 0.05, 0.07, 0.08, 0.1, 10.0])
def test_a_surprise_lands_however_uncertain_the_model(label: int, precision: float) -> None:
    """The score after the step is the solution's, also where Newton's method alone would circle."""
    generator = np.random.default_rng(3)
    for score in (-20.0, *np.linspace(-8, 8, 33), 20.0):
        found = []
        for kernel in (reference, compiled):
            sides = parameters(generator, 6, 2), parameters(generator, 3, 3)
            for side in sides:
                side.latent[:] = side.main[:] = side.main_prior[:] = 0
                side.main_evidence[:] = 100
            bias = np.array([score, precision])
            one = Values(np.array([0, 3]), np.arange(3)), Values(np.array([0]), np.arange(2))
            y, scores = np.array([label], np.float32), np.zeros((1, 2), np.float32)
            kernel.learn(TINY, rule("curvature", "augmented"), *sides, *one, y, bias, scores)
            found.append(bias)
        np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)


both_kernels = pytest.mark.parametrize(
    "kernel", [reference, compiled], ids=["reference", "compiled"]
)


def blank() -> tuple[Parameters, Parameters]:
    """Tables of `TINY`, three values a feature: all zeros but the priors, each 1."""
    generator = np.random.default_rng(0)
    sides = parameters(generator, 6, TINY.user_width), parameters(generator, 3, TINY.dimensions)
    for side in sides:
        for name in ("latent", "main", "latent_evidence", "main_evidence", "dual"):
            getattr(side, name)[:] = 0
        side.latent_prior[:] = side.main_prior[:] = 1
    return sides


def learn_one(
    kernel: Kernel, rule_: Rule, sides: tuple[Parameters, Parameters], score: float, ads: list[int]
) -> Float64s:
    """Learn one click on some ad values by the first value of each user feature; the bias after.

    `score` is the bias before, of precision 1.
    """
    bias, scores = np.array([score, 1.0]), np.zeros((1, 2), np.float32)
    rows = Values(np.array([0, 3]), np.arange(3)), Values(np.array(ads), np.array([0, len(ads)]))
    kernel.learn(TINY, rule_, *sides, *rows, np.ones(1, np.float32), bias, scores)
    return bias


@both_kernels
@pytest.mark.parametrize(("radius", "violation"), [(0.5, 3.0), (0.8, 0.5625), (1.0, 0.0), (2.0, 0)])
@pytest.mark.parametrize("side", ["user", "ad"])
def test_the_present_violation_adds_to_the_dual(
    side: str, radius: float, violation: float, kernel: Kernel
) -> None:
    """v ← v / (1 + η (μ + w (‖v‖²/r² − 1))) outside the radius, by hand; inside it μ alone acts.

    The other side's vectors are zero, so the gradient of v is: only the constraint moves it.
    """
    user, ad = sides = blank()
    table = {"user": user, "ad": ad}[side]
    table.latent[0, :2] = 0.6, 0.8
    table.latent_evidence[0] = 3.0
    table.dual[0] = 0.5
    held = rule("curvature", "augmented")._replace(
        weight_decay=0.0, latent_step=1.0, violation_weight=2.0, **{f"{side}_radius": radius}
    )
    learn_one(kernel, held, sides, -1.0, [0])
    expected = np.array([0.6, 0.8]) / (1 + (0.5 + 2.0 * violation) / (1.0 + 3.0))
    np.testing.assert_allclose(table.latent[0, :2], expected, rtol=1e-5)


@both_kernels
@pytest.mark.parametrize(
    ("step", "score", "e"), [("curvature", -2.25, -0.5), ("linear", 0.0, -0.5 / (1 + 4.5 / 4))]
)
def test_evidence_grows_by_less_the_more_is_uncertain(
    step: str, score: float, e: float, kernel: Kernel
) -> None:
    """By hand: with V = 4.5 and p = ½ an event adds h = 1/(4 + 4.5) of evidence for j = 1.

    V: 1 of the bias, 1 of each user main effect, ½ of two ad values that share one, and of their
    latents 2 · 3 · (½)² / 1.5. The curvature step lands at p = ½ from −V/2, the linear one starts
    there.
    """
    user, ad = sides = blank()
    user.latent[:] = 1.0  # ν_u = (1, 1, 1); the ads' zeros leave users' latents without a slope
    ad.latent_prior[:] = 1.5
    # Nothing shrinks; the form of it is that of `CASES`, which are compiled anyway.
    free = rule(step, "none", SHRINKS[STEPS.index(step)])
    free = free._replace(weight_decay=0.0, latent_step=1.0)
    bias = learn_one(kernel, free, sides, score, [0, 2])
    h = 1 / (4 + 4.5)
    np.testing.assert_allclose(bias, [score - e, 1 + h], rtol=1e-5)
    np.testing.assert_allclose(user.main_evidence, [h, 0, 0, h, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(ad.main_evidence, [h / 4, 0, h / 4], rtol=1e-5)
    np.testing.assert_allclose(ad.latent_evidence[[0, 2]], h / 4, rtol=1e-5)
    assert not user.latent_evidence.any()
    np.testing.assert_allclose(user.main, [-e, 0, 0, -e, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(ad.main, [-e / 2, 0, -e / 2], rtol=1e-5)
    np.testing.assert_allclose(ad.latent[[0, 2]], -e / 2 / 1.5, rtol=1e-5)


def log_loss(shape: Shape, sides: list[Parameters], rows: list[Values], y: float) -> float:
    """One event's log loss in float64, from the model's equation: the two kernels' judge."""
    score, (user, ad) = -0.5, ([], [])
    for side, values_, out in zip(sides, rows, (user, ad), strict=True):
        for first, last in pairwise(values_.ptr):
            held = values_.rows[first:last]
            score += side.main[held].astype(float).mean()
            out.append(side.latent[held].astype(float).mean(axis=0))
    o, total, at = shape.overlap, np.sum(ad, axis=0), 0
    for k in range(shape.user_features):
        for other in range(k + 1, shape.user_features):
            left = user[k][(other - 1) * o : other * o]
            score += left * user[other][k * o : (k + 1) * o] @ total[at : at + o]
            at += o
    for vector in user:
        score += vector[len(vector) - shape.alone :] @ total[at : at + shape.alone]
        at += shape.alone
    return float(np.logaddexp(0, score) - y * score)


@both_kernels
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradients_are_those_of_the_log_loss(kernel: Kernel, label: float) -> None:
    """With AdaGrad's sums huge the step is the gradient's: it equals central finite differences."""
    generator, shape = np.random.default_rng(4), Shape(3, 2, 2, 1)
    before = [parameters(generator, 9, shape.user_width), parameters(generator, 6, 9)]
    rows = [values(generator, 3, 1, 3), values(generator, 2, 1, 3)]
    plain = rule("adagrad", "none")._replace(
        alpha=1e8, learning_rate=1e4, weight_decay=0.0, latent_step=1.0
    )  # a step of exactly one gradient
    after, bias = [copied(side) for side in before], np.array([-0.5, 0.0])
    y, scores = np.array([label], np.float32), np.zeros((1, 2), np.float32)
    kernel.learn(shape, plain, *after, *rows, y, bias, scores)
    for side in (0, 1):
        for name in ("main", "latent"):
            moved = getattr(before[side], name).astype(float) - getattr(after[side], name)
            for at in np.ndindex(moved.shape):
                expected = slope(shape, before, rows, label, side, name, at)
                assert moved[at] == pytest.approx(expected, abs=2e-6)


def slope(
    shape: Shape,
    sides: list[Parameters],
    rows: list[Values],
    label: float,
    side: int,
    name: str,
    at: tuple[int, ...],
) -> float:
    """∂ log loss / ∂ one parameter, by central differences in float64."""
    ends = []
    for step in (1e-4, -1e-4):
        wide = [Parameters(*(array.astype(float) for array in table)) for table in sides]
        getattr(wide[side], name)[at] += step
        ends.append(log_loss(shape, wide, rows, label))
    return (ends[0] - ends[1]) / 2e-4


@given(
    keys=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=50),
    ids=st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), max_size=100),
)
@settings(deadline=None)
def test_resolve_equals_reference(keys: list[int], ids: list[int]) -> None:
    """Both kernels give known and unseen values the same rows."""
    given_keys, given_ids = np.array(keys, np.int64), np.array(ids, np.int64)
    slow = reference.resolve(given_keys, given_ids)
    fast = compiled.resolve(given_keys, given_ids)
    np.testing.assert_array_equal(slow[0], fast[0])
    np.testing.assert_array_equal(slow[1], fast[1])


def test_resolve_grows() -> None:
    """Many unseen values outgrow the first hash table and still get rows 0, 1, 2, …"""
    ids = np.arange(50_000, dtype=np.int64) * 7919
    rows, born = compiled.resolve(np.zeros(0, np.int64), np.concatenate((ids, ids)))
    np.testing.assert_array_equal(rows, np.tile(np.arange(50_000), 2))
    np.testing.assert_array_equal(born, np.arange(50_000))


@pytest.mark.parametrize("step", STEPS)
def test_non_finite_values_survive(step: str) -> None:
    """A NaN parameter yields NaN scores: fast floating point must not hide it."""
    generator = np.random.default_rng(1)
    shape = SHAPE
    user, ad = parameters(generator, 9, shape.user_width), parameters(generator, 6, 9)
    user.latent[:] = np.nan
    user_values, ad_values = values(generator, 3, 1, 1), values(generator, 2, 1, 1)
    scores = np.zeros((1, 2), np.float32)
    compiled.learn(
        shape,
        rule(step, "augmented"),
        user,
        ad,
        user_values,
        ad_values,
        np.ones(1, np.float32),
        np.array([0.0, 1.0]),
        scores,
    )
    assert np.isnan(scores[:, 1]).all()
    assert np.isnan(user.latent[user_values.rows]).all()


def door(**changes: object) -> None:
    """A sound call of the door with some arguments changed."""
    generator = np.random.default_rng(2)
    shape = SHAPE
    arguments = {
        "shape": shape,
        "user": parameters(generator, 9, shape.user_width),
        "ad": parameters(generator, 9, shape.dimensions),
        "user_values": values(generator, 3, 2, 2),
        "ad_values": values(generator, 2, 2, 2),
        "label": np.ones(2, np.float32),
    }
    check(**(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("label[1]", {"label": np.array([0, 0.5], np.float32)}),
        ("label", {"label": np.zeros(2)}),
        ("user.ptr", {"user_values": Values(np.zeros(7, np.int64), np.arange(7))}),
        ("user.rows[2]", {"user_values": Values(np.array([0, 0, 9, 0, 0, 0]), np.arange(7))}),
        (
            "user.ptr[2]",
            {"user_values": Values(np.zeros(6, np.int64), np.array([0, 1, 2, 2, 4, 5, 6]))},
        ),
        ("ad.latent", {"ad": parameters(np.random.default_rng(0), 4, 2)}),
    ],
)
def test_door_names_the_fault(field: str, change: dict[str, object]) -> None:
    """What a kernel could not survive is refused, and the message says where it stands."""
    with pytest.raises(InvalidInput) as refused:
        door(**change)
    assert refused.value.field == field
