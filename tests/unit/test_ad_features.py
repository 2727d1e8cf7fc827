"""Encoded features of many ads at once, against one ad after the other."""

from __future__ import annotations

import numpy as np
import pytest

from app.serving.ad_features import features_of, own_keys
from app.serving.items import Items
from models.features import Packing, pack, stack
from models.types import Encoded

FEATURES = 3
RANDOM = np.random.default_rng(1)


def item() -> bytes:
    """One ad's count bytes and ids, one to three values a feature."""
    counts = RANDOM.integers(1, 4, FEATURES).astype(np.uint8)
    ids = RANDOM.integers(-(2**63), 2**63 - 1, int(counts.sum()), np.int64)
    return counts.tobytes() + ids.astype("<i8").tobytes()


def one(items: Items, row: int) -> Encoded:
    """The features of one ad, decoded by itself."""
    content = items[row]
    ids = np.frombuffer(content, "<i8", offset=FEATURES)
    return Encoded(ids, np.frombuffer(content, np.uint8, FEATURES))


OLD = Items.of([item() for _ in range(40)])
CHANGED = OLD.replaced(50, np.array([*range(40, 50), 7, 3]), [item() for _ in range(12)])


@pytest.mark.parametrize("items", [OLD, CHANGED], ids=["as made", "with changes"])
@pytest.mark.parametrize("rows", [[], [0], [39, 3, 3, 7], list(range(40))])
def test_many_ads_at_once_are_what_each_is(items: Items, rows: list[int]) -> None:
    """Rows of the first buffer and of what came since give the block that stacking gives."""
    found = features_of(items, np.array(rows, np.int64), FEATURES)
    expected = stack([one(items, row) for row in rows], FEATURES)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.ptr.tolist() == expected.ptr.tolist()
    assert len(found) == len(rows)


@pytest.mark.parametrize("own", range(FEATURES))
def test_own_values_are_the_first_of_their_feature(own: int) -> None:
    """The key of a feature is its first hash, whatever the features before it have."""
    rows = np.array([49, 7, 0, 3])
    block = features_of(CHANGED, rows, FEATURES)
    expected = [int(block.ids[block.ptr[FEATURES * at + own]]) for at in range(len(rows))]
    assert own_keys(CHANGED, rows, FEATURES, own).tolist() == expected


def test_packing_beside_one_user_is_packing_each() -> None:
    """The bytes of a user beside an ad's own bytes are those of packing both."""
    user = one(CHANGED, 5)
    packing = Packing.of(user, FEATURES)
    for row in range(len(CHANGED)):
        assert packing.beside(CHANGED[row]) == pack(user, one(CHANGED, row))
