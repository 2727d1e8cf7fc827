"""No user and no ad can leave the certified range of scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.certificate import (
    block_bounds,
    inner_product_bounds,
    score_range,
    undominated,
)
from models.offset import Model
from models.types import Encoded


def random_model(
    seed: int, features: int, overlap: int, alone: int, values: int, scale: float
) -> Model:
    """A model whose user values are numbered feature by feature, and ten ad values."""
    rng = np.random.default_rng(seed)
    n, width = features * values, (features - 1) * overlap + alone
    dimensions = features * (features - 1) // 2 * overlap + features * alone

    def drawn(*shape: int) -> np.ndarray:
        return (scale * rng.standard_t(3, shape)).astype(np.float32)

    return Model(
        user_keys=np.arange(n, dtype=np.int64),
        user_latent=drawn(n, width),
        user_main=drawn(n),
        user_feature=np.repeat(np.arange(features, dtype=np.uint8), values),
        ad_keys=np.arange(10, dtype=np.int64),
        ad_latent=drawn(10, dimensions),
        ad_main=drawn(10),
        bias=float(rng.normal()),
        user_features=features,
        overlap=overlap,
        alone=alone,
    )


def random_user(model: Model, rng: np.random.Generator) -> Encoded:
    """One to three values a feature, some of them never seen."""
    values = len(model.user_keys) // model.user_features
    counts = rng.integers(1, 4, model.user_features).astype(np.uint8)
    ids = [
        int(k * values + rng.integers(values)) if rng.random() < 0.9 else -1 - int(k)
        for k, count in enumerate(counts)
        for _ in range(count)
    ]
    return Encoded(np.array(ids, np.int64), counts)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    features=st.integers(1, 5),
    overlap=st.integers(1, 4),
    alone=st.integers(1, 4),
    values=st.integers(1, 6),
    scale=st.floats(0.01, 3.0),
)
def test_no_user_leaves_the_range(
    seed: int, features: int, overlap: int, alone: int, values: int, scale: float
) -> None:
    """Scores of many users, with several and with unseen values, stay inside for every ad."""
    model = random_model(seed, features, overlap, alone, values, scale)
    reach = score_range(model, model.ad_latent, model.ad_main)
    rng = np.random.default_rng(seed)
    for _ in range(30):
        latent, main = model.user_vector(random_user(model, rng))
        scores = model.ad_latent @ latent + model.ad_main + np.float32(main + model.bias)
        assert reach.low <= scores.min()
        assert scores.max() <= reach.high


def test_the_bound_of_one_block_is_reached() -> None:
    """With one pair of features and one value each, the largest score is the bound itself."""
    model = random_model(3, features=2, overlap=1, alone=0, values=1, scale=1.0)
    product = float(model.user_latent[0, 0] * model.user_latent[1, 0])
    expected = np.abs(model.ad_latent[:, 0] * product)
    np.testing.assert_allclose(inner_product_bounds(model, model.ad_latent), expected, rtol=1e-5)


def test_many_values_fall_back_to_a_looser_bound() -> None:
    """Blocks on a sphere dominate none of each other: the bound by 4-norms is used, and holds."""
    model = random_model(4, features=2, overlap=3, alone=0, values=2500, scale=1.0)
    norms = np.linalg.norm(model.user_latent, axis=1, keepdims=True)
    sphere = replace(model, user_latent=model.user_latent / norms)
    first, second = sphere.user_latent[:2500], sphere.user_latent[2500:]
    largest = np.sqrt(((first[:, None] * second[None]) ** 2).sum(axis=2).max())
    assert largest <= block_bounds(sphere)[0] <= 1.0 + 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), values=st.integers(1, 600), overlap=st.integers(1, 4))
def test_dropping_dominated_values_keeps_the_largest_product(
    seed: int, values: int, overlap: int
) -> None:
    """The largest product of all pairs is that of the pairs which no value exceeds."""
    rng = np.random.default_rng(seed)
    left, right = rng.random((2, values, overlap)).round(2)
    kept = undominated(left) @ undominated(right).T
    assert kept.max() == (left @ right.T).max()


def test_without_ads_the_range_is_that_of_users_alone() -> None:
    """An empty catalog is certified by main effects of users and the bias."""
    model = random_model(5, features=2, overlap=2, alone=2, values=3, scale=1.0)
    none = np.zeros((0, model.ad_latent.shape[1]), np.float32)
    reach = score_range(model, none, np.zeros(0, np.float32))
    assert reach.low <= model.bias <= reach.high
