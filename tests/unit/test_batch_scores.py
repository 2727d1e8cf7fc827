"""The batch paths that a training chunk takes: byte strings in one buffer, rows taken, scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.features import Encoder, parse_schema, stack
from models.offset import Model
from models.types import Blobs, Ragged

SCHEMA = parse_schema(
    """version = 1
[user.geo]
kind = "categorical"
[user.interest]
kind = "multi"
[ad.creative]
kind = "categorical"
[ad.category]
kind = "multi"
"""
)
LETTERS = st.lists(st.sampled_from("abcd"), max_size=4)


def _model(seed: int) -> Model:
    """Random parameters for some of the values, so that others are unseen."""
    random, encoder = np.random.default_rng(seed), Encoder(SCHEMA)
    user = encoder.encode_user({"geo": "a", "interest": ["a", "b", "c"]}).ids
    ad = encoder.encode_ad({"creative": 1, "category": ["a", "b"]}).ids
    overlap, alone = SCHEMA.model.overlap, SCHEMA.model.alone

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    return Model(
        user_keys=np.sort(user),
        user_latent=drawn(len(user), SCHEMA.user_width),
        user_main=drawn(len(user)),
        user_feature=np.zeros(len(user), np.uint8),
        ad_keys=np.sort(ad),
        ad_latent=drawn(len(ad), SCHEMA.dimensions),
        ad_main=drawn(len(ad)),
        bias=-1.0,
        user_features=2,
        overlap=overlap,
        alone=alone,
    )


@given(rows=st.lists(st.tuples(LETTERS, st.integers(1, 2), LETTERS), max_size=30))
def test_a_batch_is_scored_as_its_rows_are(
    rows: list[tuple[list[str], int, list[str]]],
) -> None:
    """Several values, unseen ones and ads that repeat: every score is that of the row by itself."""
    model, encoder = _model(1), Encoder(SCHEMA)
    users = [encoder.encode_user({"geo": "a", "interest": list(row[0])}) for row in rows]
    ads = [encoder.encode_ad({"creative": row[1], "category": list(row[2])}) for row in rows]
    scores = model.score(stack(users, 2), stack(ads, 2))
    for score, user, ad in zip(scores, users, ads, strict=True):
        latent, main = model.user_vector(user)
        vectors, mains = model.ad_vectors(stack([ad], 2))
        alone = latent @ vectors[0] + main + mains[0] + model.bias
        np.testing.assert_allclose(score, alone, rtol=1e-4, atol=1e-4)


@given(picked=st.lists(st.integers(0, 3), max_size=8))
def test_rows_are_taken_in_the_order_asked_for(picked: list[int]) -> None:
    """Also more than once, and none."""
    cells = [[1], [2, 3], [4], [5], [6, 7, 8], [9], [10], [11, 12]]
    ptr = np.cumsum([0, *map(len, cells)])
    block = Ragged(np.concatenate(cells), ptr, 2)
    taken = block.take(np.array(picked, np.int64))
    found = [taken.ids[a:b].tolist() for a, b in zip(taken.ptr, taken.ptr[1:], strict=False)]
    assert found == [cell for row in picked for cell in cells[2 * row : 2 * row + 2]]


@given(blobs=st.lists(st.binary(min_size=3, max_size=9)))
def test_byte_strings_in_one_buffer_are_a_sequence(blobs: list[bytes]) -> None:
    """Equal to the list they were made from, sliced like it, and their heads are their heads."""
    held = Blobs.of(blobs)
    assert held == blobs
    assert held[1:] == blobs[1:]
    assert [head.tobytes() for head in held.heads(3)] == [blob[:3] for blob in blobs]
