"""The served model computes OFFSET's equations; unseen values count as zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.constraints import project
from models.offset import Model, genesis, layout, sigmoid
from models.schema import Schema
from models.trainer import TrainerSettings, train
from models.types import Batch, Encoded

Draw = Callable[..., Batch]


@pytest.fixture
def model(schema: Schema, draw: Draw) -> Model:
    """A model that has learned a little."""
    settings = TrainerSettings.of(schema)
    state = train(genesis(schema, 0.2, 1), draw(200), schema, settings).state
    return project(state, settings.radii, schema)[0]


def encoded(batch: Batch, i: int) -> Encoded:
    """One impression's user, as a request carries it."""
    row = batch.user.rows(i, i + 1)
    return Encoded(row.ids, np.diff(row.ptr).astype(np.uint8))


def test_layout_pairs_the_blocks_that_belong_together() -> None:
    """Feature k's block for l meets feature l's block for k; alone blocks come last."""
    where = layout(3, 1, 1)
    np.testing.assert_array_equal(where.left, [0, 1, 4])
    np.testing.assert_array_equal(where.right, [3, 6, 7])
    np.testing.assert_array_equal(where.alone, [2, 5, 8])


def test_user_vector_follows_the_equation(model: Model, draw: Draw) -> None:
    """Blocks of each pair are multiplied entry by entry, alone blocks are appended."""
    user = encoded(draw(1, seed=3), 0)
    rows = np.searchsorted(model.user_keys, user.ids)
    v, o = model.user_latent[rows], model.overlap
    pairs = [v[0, :o] * v[1, :o], v[0, o : 2 * o] * v[2, :o], v[1, o : 2 * o] * v[2, o : 2 * o]]
    expected = np.concatenate([*pairs, *v[:, 2 * o :]])
    vector, main = model.user_vector(user)
    np.testing.assert_allclose(vector, expected, rtol=1e-6)
    assert main == pytest.approx(model.user_main[rows].sum())


def test_score_is_bias_mains_and_inner_product(model: Model, draw: Draw) -> None:
    """A batch scores what its users and ads score one by one."""
    events = draw(30, seed=4)
    ads, ad_main = model.ad_vectors(events.ad)
    for i, score in enumerate(model.score(events.user, events.ad)):
        vector, main = model.user_vector(encoded(events, i))
        assert score == pytest.approx(model.bias + main + ad_main[i] + vector @ ads[i], abs=1e-5)


def test_unseen_values_are_zeros(model: Model) -> None:
    """A user of whom nothing is known has a zero vector, and so scores the bias and the ad."""
    stranger = Encoded(np.array([1, 2, 3], np.int64), np.ones(3, np.uint8))
    vector, main = model.user_vector(stranger)
    assert not vector.any()
    assert main == 0.0


def test_a_multi_valued_feature_is_the_mean_of_its_values(model: Model, draw: Draw) -> None:
    """Two interests give the mean of what each gives: s is linear in one feature's vector."""
    events = draw(40, seed=5)
    one, other = next(
        (a, b)
        for a in (encoded(events, i) for i in range(40))
        for b in (encoded(events, i) for i in range(40))
        if (a.ids[:2] == b.ids[:2]).all() and a.ids[2] != b.ids[2]
    )
    both = Encoded(np.append(one.ids, other.ids[2]), np.array([1, 1, 2], np.uint8))
    mean = (model.user_vector(one)[0] + model.user_vector(other)[0]) / 2
    np.testing.assert_allclose(model.user_vector(both)[0], mean, atol=1e-6)


def test_genesis_scores_the_base_rate(schema: Schema, draw: Draw) -> None:
    """Without any row the model still scores, and predicts the configured rate."""
    settings, events = TrainerSettings.of(schema), draw(5)
    model, _ = project(genesis(schema, 0.03, 1), settings.radii, schema)
    np.testing.assert_allclose(sigmoid(model.score(events.user, events.ad)), 0.03, rtol=1e-5)


def test_sigmoid_of_extremes_is_finite() -> None:
    """Scores of any size give probabilities without overflow."""
    np.testing.assert_array_equal(sigmoid([-1e4, 0.0, 1e4]), [0.0, 0.5, 1.0])
