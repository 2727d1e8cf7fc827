"""The compiled scores of a chunk against `Model.score`, their NumPy twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.offset import Model
from models.scoring import chunk_scores
from models.trainer import TrainerSettings
from models.types import Batch, Float32s, Int64s, Ragged
from tests.unit.learners import PARSED

SETTINGS = TrainerSettings.of(PARSED)
SHAPE = SETTINGS.shape


def model(random: np.random.Generator, users: int, ads: int) -> Model:
    """A model of random parameters that knows so many even keys of each side, from 0 on."""

    def drawn(*size: int) -> Float32s:
        return random.normal(size=size).astype(np.float32)

    return Model(
        user_keys=np.arange(users, dtype=np.int64) * 2,
        user_latent=drawn(users, SHAPE.user_width),
        user_main=drawn(users),
        user_feature=np.zeros(users, np.uint8),
        ad_keys=np.arange(ads, dtype=np.int64) * 2,
        ad_latent=drawn(ads, SHAPE.dimensions),
        ad_main=drawn(ads),
        bias=-1.5,
        user_features=SHAPE.user_features,
        overlap=SHAPE.overlap,
        alone=SHAPE.alone,
    )


def block(random: np.random.Generator, rows: int, features: int, most: int) -> Ragged:
    """Rows of one to `most` distinct values a feature; one in two of 40 values is seen at most."""
    counts = random.integers(1, most + 1, rows * features)
    ids = [random.choice(40, count, replace=False) for count in counts]
    ptr: Int64s = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return Ragged(np.concatenate([np.zeros(0, np.int64), *ids]).astype(np.int64), ptr, features)


def chunk(random: np.random.Generator, rows: int, most: int = 3) -> Batch:
    """A chunk of random values."""
    none = np.zeros(rows, np.int64)
    sides = (block(random, rows, n, most) for n in (SHAPE.user_features, SHAPE.ad_features))
    return Batch(none, none, np.zeros(rows, np.float32), *sides)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.integers(0, 25), st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_chunk_scores_equal_the_models(seed: int, rows: int, users: int, ads: int) -> None:
    """Whatever the model has seen, and without any events, scores are those that are served."""
    random = np.random.default_rng(seed)
    served, given_chunk = model(random, users, ads), chunk(random, rows)
    scores = chunk_scores(served, given_chunk, SETTINGS)
    assert scores.dtype == np.float32
    expected = served.score(given_chunk.user, given_chunk.ad)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)


def test_scoring_changes_nothing() -> None:
    """A model whose arrays refuse to be written scores twice alike."""
    random = np.random.default_rng(3)
    served, given_chunk = model(random, 20, 20), chunk(random, 50)
    for name in ("user_latent", "user_main", "ad_latent", "ad_main"):
        getattr(served, name).flags.writeable = False
    first = chunk_scores(served, given_chunk, SETTINGS)
    assert np.array_equal(first, chunk_scores(served, given_chunk, SETTINGS))


def test_broken_chunk_is_refused() -> None:
    """A row without a value for some feature is named before any loop runs over it."""
    random = np.random.default_rng(4)
    given_chunk = chunk(random, 5, most=1)
    ptr = given_chunk.user.ptr.copy()
    ptr[1] = 0
    broken = replace(given_chunk, user=replace(given_chunk.user, ptr=ptr))
    with pytest.raises(InvalidInput, match="at least one value"):
        chunk_scores(model(random, 20, 20), broken, SETTINGS)
