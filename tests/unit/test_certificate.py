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
)
from models.offset import Model


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
def test_values_left_untried_do_not_hold_the_largest_product(
    seed: int, values: int, overlap: int
) -> None:
    """The bound of a pair of features is the largest product of all pairs of their values."""
    model = random_model(seed, features=2, overlap=overlap, alone=0, values=values, scale=1.0)
    squares = model.user_latent.astype(np.float64) ** 2
    largest = np.sqrt((squares[:values] @ squares[values:].T).max())
    np.testing.assert_allclose(block_bounds(model), [largest], rtol=1e-12)


def test_without_ads_the_range_is_that_of_users_alone() -> None:
    """An empty catalog is certified by main effects of users and the bias."""
    model = random_model(5, features=2, overlap=2, alone=2, values=3, scale=1.0)
    none = np.zeros((0, model.ad_latent.shape[1]), np.float32)
    reach = score_range(model, none, np.zeros(0, np.float32))
    assert reach.low <= model.bias <= reach.high
