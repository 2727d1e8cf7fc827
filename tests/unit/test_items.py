"""One byte string a row: whatever happens to the rows, each keeps its own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.serving.items import Items

TEXTS = st.binary(max_size=12)
STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, 14), TEXTS, max_size=6),
        st.permutations(range(12)),
        st.none(),
    ),
    max_size=6,
)


@given(st.lists(TEXTS, max_size=10), STEPS)
def test_items_follow_a_list(start: list[bytes], steps: list[dict[int, bytes] | list[int] | None]):
    """Replacing, growing, moving, dropping and compacting do what they would to a list."""
    items, listed = Items.of(start), list(start)
    for step in steps:
        if step is None:
            items = items.compacted()
        elif isinstance(step, dict):
            size = max([len(listed), *(row + 1 for row in step)])
            items = items.replaced(size, np.array(list(step), np.int64), list(step.values()))
            listed += [b""] * (size - len(listed))
            for row, value in step.items():
                listed[row] = value
        else:
            rows = (step * 2)[: len(listed)]
            kept = [row if rows.index(row) == at and row < 9 else -1 for at, row in enumerate(rows)]
            items = items.moved(9, np.array(kept, np.int64))
            moved = [b""] * 9
            for at, row in enumerate(kept):
                if row >= 0:
                    moved[row] = listed[at]
            listed = moved
    assert [items[row] for row in range(len(items))] == listed


def test_what_changes_nothing_makes_nothing() -> None:
    """The same values again give the same object, so that a worker shares what it maps."""
    items = Items.of([b"a", b"bc", b""])
    assert items.replaced(3, np.array([2, 1]), [b"", b"bc"]) is items


def test_replaced_bytes_do_not_pile_up() -> None:
    """Changes without end leave no more behind than a few MB."""
    items = Items.of([b"x" * 1000] * 4)
    for change in range(5000):
        items = items.replaced(4, np.array([change % 4]), [bytes([change % 256]) * 1000])
    assert len(items.base) + len(items.recent) < 2_200_000
    assert items[3] == bytes([4999 % 256]) * 1000
