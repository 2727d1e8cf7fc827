"""No user and no ad can leave the certified range of scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
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


@pytest.mark.parametrize(("features", "overlap", "alone"), [(2, 2, 0), (3, 2, 2), (4, 1, 3)])
def test_no_block_of_a_vector_is_left_out(features: int, overlap: int, alone: int) -> None:
    """An ad that is one block of a user's vector, whichever, is bounded by its product with it."""
    model = random_model(6, features, overlap, alone, values=1, scale=1.0)
    where, flat = model.layout, model.user_latent.ravel()
    user = np.concatenate((flat[where.left] * flat[where.right], flat[where.alone]))
    pairs = len(where.left)
    widths = [overlap] * (pairs // overlap) + [alone] * (features if alone else 0)
    block = np.repeat(np.arange(len(widths)), widths)
    ads = np.where(block == np.arange(len(widths))[:, None], user, 0).astype(np.float32)
    products = (ads.astype(np.float64) ** 2).sum(axis=1)
    # Of one value a feature the bound is all but reached: Cauchy–Schwarz on parallel vectors.
    np.testing.assert_allclose(inner_product_bounds(model, ads), products, rtol=1e-5)
    assert (products > 0).all()


def on_spheres(values: int) -> Model:
    """Values whose blocks are all of length 1, so that none dominates another."""
    model = random_model(4, features=2, overlap=3, alone=0, values=values, scale=1.0)
    norms = np.linalg.norm(model.user_latent, axis=1, keepdims=True)
    return replace(model, user_latent=model.user_latent / norms)


def largest_product(model: Model) -> float:
    """The largest norm of a product of the only two features' blocks, by trying all."""
    squares = np.square(model.user_latent, dtype=np.float64)
    first, second = (squares[model.user_feature == k] for k in (0, 1))
    return float(np.sqrt((first @ second.T).max()))


def test_many_values_fall_back_to_a_looser_bound() -> None:
    """Where trying all pairs would take too long the bound of those untried stands, and holds."""
    model = on_spheres(2500)
    exact, found = block_bounds(model)[0], block_bounds(model, exact_products=0)[0]
    largest = largest_product(model)
    assert exact == pytest.approx(largest, rel=1e-12)
    assert exact < found <= 1.0 + 1e-6
    assert found / 2 < largest


def decoyed() -> Model:
    """A model whose largest product, 1.2, is that of a value with a lower bound than 300 others.

    Squared blocks: 300 values of (1, 1, 0) and one of (0, 0, 1.2) face 150 each of (1, 0, 0) and
    (0, 1, 0) and one of (0, 0, 1). A decoy's products are at most 1, its bound is √2.
    """
    axes = np.eye(3)
    left = np.vstack([np.tile(axes[0] + axes[1], (300, 1)), 1.2 * axes[2:]])
    right = np.vstack([np.tile(axes[:1], (150, 1)), np.tile(axes[1:2], (150, 1)), axes[2:]])
    model = random_model(4, features=2, overlap=3, alone=0, values=301, scale=1.0)
    return replace(model, user_latent=np.sqrt(np.vstack([left, right])).astype(np.float32))


@pytest.mark.parametrize(
    ("exact_products", "expected"), [(0, 2**0.5), (3, 2**0.5), (897, 2**0.5), (900, 1.2)]
)
def test_what_is_left_untried_is_bounded(exact_products: int, expected: float) -> None:
    """The best value may be among the untried: the largest bound of these stands for them all.

    One value of the right is worth trying, with 3 multiplications for each of the left, which are
    taken by falling bounds.
    """
    found = block_bounds(decoyed(), exact_products=exact_products)[0]
    assert largest_product(decoyed()) == pytest.approx(1.2**0.5)
    assert found == pytest.approx(expected**0.5, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    values=st.integers(257, 500),
    overlap=st.integers(1, 4),
    exact_products=st.sampled_from([0, 1, 10, 100, 1000, 10_000]),
)
def test_however_little_is_tried_the_bound_holds(
    seed: int, values: int, overlap: int, exact_products: int
) -> None:
    """A bound from fewer products is never below the largest, nor above what lengths allow."""
    model = random_model(seed, features=2, overlap=overlap, alone=0, values=values, scale=1.0)
    found = block_bounds(model, exact_products=exact_products)[0]
    squares = np.square(model.user_latent, dtype=np.float64)
    lengths = np.linalg.norm(squares, axis=1).reshape(2, values).max(axis=1)
    assert largest_product(model) * (1 - 1e-12) <= found
    assert found <= np.sqrt(lengths.prod()) * (1 + 1e-12)


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
