"""The compiled kernel equals its NumPy twin, and the door keeps out what neither survives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.kernels import (
    CONSTRAINTS,
    STEPS,
    Parameters,
    Rule,
    Shape,
    Values,
    check,
    compiled,
    reference,
)

SHAPE = Shape(3, 2, 2, 1)
CASES = (
    *((SHAPE, step) for step in STEPS),
    (Shape(1, 1, 0, 2), "curvature"),
)


def parameters(generator: np.random.Generator, rows: int, width: int) -> Parameters:
    def positive(*size: int) -> np.ndarray:
        return generator.uniform(0.5, 3.0, size).astype(np.float32)

    return Parameters(
        latent=generator.normal(0, 0.5, (rows, width)).astype(np.float32),
        main=generator.normal(0, 0.5, rows).astype(np.float32),
        latent_precision=positive(rows, width),
        main_precision=positive(rows),
        dual=generator.uniform(0, 0.5, rows).astype(np.float32),
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


def rule(step: str, constraint: str, step_size: float = 1.0) -> Rule:
    codes = STEPS.index(step), CONSTRAINTS.index(constraint)
    return Rule(*codes, step_size, 0.1, 0.01, 0.5, 0.01, 1.0, user_radius=0.6, ad_radius=0.5)


def copied(given: Parameters) -> Parameters:
    return Parameters(*(array.copy() for array in given))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    case=st.sampled_from(CASES),
    constraint=st.sampled_from(CONSTRAINTS),
    events=st.integers(0, 30),
    longest=st.integers(1, 3),
)
def test_compiled_equals_reference(
    seed: int, case: tuple[Shape, str], constraint: str, events: int, longest: int
) -> None:
    """Both kernels give the same predictions and parameters, whatever the rule and the shape."""
    shape, step = case
    generator = np.random.default_rng(seed)
    user = parameters(generator, 3 * shape.user_features, shape.user_width)
    ad = parameters(generator, 3 * shape.ad_features, shape.dimensions)
    user_values = values(generator, shape.user_features, events, longest)
    ad_values = values(generator, shape.ad_features, events, longest)
    label = generator.integers(0, 2, events).astype(np.float32)
    outcomes = []
    for kernel in (reference, compiled):
        sides = copied(user), copied(ad)
        bias, predicted = np.array([-0.5, 0.25]), np.zeros(events, np.float32)
        check(shape, *sides, user_values, ad_values, label)
        kernel.learn(
            shape,
            rule(step, constraint),
            *sides,
            user_values,
            ad_values,
            label,
            bias,
            predicted,
        )
        outcomes.append((*sides[0], *sides[1], bias, predicted))
    for slow, fast in zip(*outcomes, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-3, atol=1e-4)


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
    """A NaN parameter yields NaN predictions: fast floating point must not hide it."""
    generator = np.random.default_rng(1)
    shape = SHAPE
    user, ad = parameters(generator, 9, shape.user_width), parameters(generator, 6, 9)
    user.latent[:] = np.nan
    user_values, ad_values = values(generator, 3, 1, 1), values(generator, 2, 1, 1)
    predicted = np.zeros(1, np.float32)
    compiled.learn(
        shape,
        rule(step, "augmented"),
        user,
        ad,
        user_values,
        ad_values,
        np.ones(1, np.float32),
        np.array([0.0, 1.0]),
        predicted,
    )
    assert np.isnan(predicted).all()
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
