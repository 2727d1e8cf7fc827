"""Every learner, the streams that it learns and what a sound result is, for the contract suite.

A learner is a set of changes to the default settings of `models.trainer.train`. All of them run on
the readable kernel, the default ones on the compiled kernel too: each rule and shape there costs a
compilation of seconds, and `test_kernels` holds the two kernels together for every rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.constraints import Radii, project
from models.features import Encoder, parse_schema, stack
from models.kernels import CONSTRAINTS, STEPS, Kernel, compiled, reference
from models.offset import Model, State, Table, genesis, sigmoid
from models.schema import Schema
from models.trainer import Trained, TrainerSettings, train
from models.types import Batch, FeatureValue, Scalar
from tests.unit.conftest import CATEGORIES, SCHEMA

User = dict[str, FeatureValue]
PARSED = parse_schema(SCHEMA)
TIGHT: dict[str, Any] = {"user_radius": 0.5, "ad_radius": 0.1, "clip_norm": 0.12}
"""Limits that some vectors reach within a few events, so that constraints act."""
WIDE: dict[str, Any] = {"user_radius": 1e3, "ad_radius": 1e3, "clip_norm": 1e3}
"""Limits that nothing reaches."""
FIXED: dict[str, Any] = {"user_variance": (0.1, 0.2, 0.3), "ad_variance": (0.1, 0.2)} | {
    "learns_interactions": False,
    "weighs_interactions": False,
}
"""Variances of main effects that are given, so that none are learned after a chunk."""

RULES: dict[str, dict[str, Any]] = {
    f"{step}-{constraint}": {"step": step, "constraint": constraint}
    for step in STEPS
    for constraint in CONSTRAINTS
}
LEARNERS: dict[str, dict[str, Any]] = RULES | {
    **{f"{step}-main": {"step": step, "initial_scale": 0.0} for step in STEPS},
    "curvature-explicit": {"constraint": "dual", "shrink": "explicit"},
}
COMPILED = ("curvature-augmented", "curvature-main")
RUNS = [
    *(pytest.param(name, reference, id=name) for name in LEARNERS),
    *(pytest.param(name, compiled, id=f"{name}-compiled") for name in COMPILED),
]

every_learner = pytest.mark.parametrize("name", LEARNERS)
every_run = pytest.mark.parametrize(("name", "kernel"), RUNS)


def learner(name: str, schema: Schema = PARSED, **others: Any) -> TrainerSettings:
    """A learner's settings, under tight radii unless others are given."""
    return replace(TrainerSettings.of(schema), **(TIGHT | LEARNERS[name] | others))


@lru_cache
def events(n: int, seed: int = 0, ads: int = 8) -> Batch:
    """Impressions with one or two interests and categories; a shared one makes a click likely."""
    rng, encoder = np.random.default_rng(seed), Encoder(PARSED)
    users, shown, labels = [], [], []
    for _ in range(n):
        geo, ad = f"g{rng.integers(4)}", int(rng.integers(ads)) + 1
        interests = set(rng.permutation(CATEGORIES)[: rng.integers(1, 3)])
        categories: list[Scalar] = [CATEGORIES[ad % 4], CATEGORIES[ad * 7 % 3]]
        score = -2.0 + 2.0 * (geo == "g1") + 1.5 * bool(interests & {*categories})
        labels.append(rng.random() < sigmoid(score))
        device = f"d{rng.integers(2)}"
        user: User = {"geo": geo, "device": device, "interest": list(interests)}
        users.append(encoder.encode_user(user))
        shown.append(encoder.encode_ad({"creative": ad, "category": categories}))
    time_ms, ad_id = np.arange(n, dtype=np.int64), np.ones(n, np.int64)
    return Batch(time_ms, ad_id, np.array(labels, np.float32), stack(users, 3), stack(shown, 2))


def shaped(user_features: int, overlap: int, alone: int) -> Schema:
    """A schema of so many user features and this shape, one that a file may not ask for too."""
    tables = "".join(f'[user.u{k}]\nkind = "multi"\n' for k in range(user_features))
    ads = '[ad.creative]\nkind = "categorical"\n[ad.category]\nkind = "multi"\n'
    schema = parse_schema(f"version = 1\n{tables}{ads}")
    return replace(schema, model=replace(schema.model, overlap=overlap, alone=alone))


def shaped_events(schema: Schema, n: int, seed: int = 0) -> Batch:
    """Impressions under `shaped`: one or two values of four a feature, five ads, random labels."""
    rng, encoder, k = np.random.default_rng(seed), Encoder(schema), len(schema.user)
    users, shown = [], []
    for _ in range(n):
        drawn = {f"u{at}": rng.integers(4, size=rng.integers(1, 3)).tolist() for at in range(k)}
        users.append(encoder.encode_user(drawn))
        creative, categories = int(rng.integers(5)), rng.integers(3, size=2).tolist()
        shown.append(encoder.encode_ad({"creative": creative, "category": categories}))
    time_ms, ad_id = np.arange(n, dtype=np.int64), np.ones(n, np.int64)
    label = rng.integers(0, 2, n).astype(np.float32)
    return Batch(time_ms, ad_id, label, stack(users, k), stack(shown, 2))


def start(schema: Schema = PARSED) -> State:
    """The state before the first event."""
    return genesis(schema, 0.2, 1)


def cut(batch: Batch, at: list[int]) -> Iterator[Batch]:
    """The batch in pieces that end at the given places."""
    for first, last in pairwise([0, *sorted(at), len(batch)]):
        yield batch.rows(first, last)


def run(
    state: State,
    chunks: Iterable[Batch],
    rule: TrainerSettings,
    kernel: Kernel,
    schema: Schema = PARSED,
) -> Trained:
    """Train chunk after chunk: the last state and the predictions of all events."""
    predicted = [np.zeros(0, np.float32)]
    for chunk in chunks:
        trained = train(state, chunk, schema, rule, kernel)
        state = trained.state
        predicted.append(trained.predicted)
    return Trained(state, np.concatenate(predicted))


def arrays(state: State) -> dict[str, npt.NDArray[Any]]:
    """Everything that a state holds, by name."""
    sides = {"user": state.user, "ad": state.ad}
    found = {f"{s}.{f.name}": getattr(t, f.name) for s, t in sides.items() for f in fields(Table)}
    interactions = state.interactions
    return found | {
        "bias": np.array([state.bias, state.bias_precision]),
        "variance": interactions.variance,
        "user.variance": state.user_variance,
        "ad.variance": state.ad_variance,
        "weight": np.array([interactions.weight, interactions.precision]),
    }


def copied(state: State) -> State:
    """A deep copy."""
    return replace(state, user=state.user.copy(), ad=state.ad.copy())


def raw_model(state: State, schema: Schema = PARSED) -> Model:
    """The model of exactly these parameters: published without projection."""
    return project(state, Radii(np.inf, np.inf), schema)[0]


def assert_equal(one: State, other: State) -> None:
    """Both states are the same, bit for bit."""
    for name, array in arrays(one).items():
        np.testing.assert_array_equal(array, arrays(other)[name], err_msg=name, strict=True)


def assert_sound(trained: Trained) -> None:
    """Predictions are probabilities, parameters finite, accumulators and duals not negative."""
    assert ((trained.predicted >= 0) & (trained.predicted <= 1)).all()
    for name, array in arrays(trained.state).items():
        assert np.isfinite(array).all(), name
        assert not name.endswith(("precision", "evidence", "dual")) or (array >= 0).all(), name
