"""Who a canary takes is drawn by user and canary."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest

from app.serving.canary import Canary

_NO_BUNDLE = cast("Any", None)  # the draw looks at none
_DECISION = UUID(int=1)


def _taken(comparison_id: int, share: float = 0.5) -> list[bool]:
    canary = Canary(comparison_id, share, _NO_BUNDLE)
    return [canary.takes(f"user {number}", _DECISION) for number in range(2000)]


def test_next_canary_has_other_users() -> None:
    """Of those that one canary takes the next takes its share, as of the others: no one is always
    the first to get what is new."""
    first, second = _taken(1), _taken(2)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    assert both / sum(first) == pytest.approx(0.5, abs=0.06)
    assert sum(second) / len(second) == pytest.approx(0.5, abs=0.06)


def test_user_keeps_to_one_canary() -> None:
    """The same users on every worker, whatever the decision, and a larger share adds to them."""
    assert _taken(1) == _taken(1)
    canary = Canary(1, 0.5, _NO_BUNDLE)
    assert canary.takes("ann", UUID(int=1)) == canary.takes("ann", UUID(int=2))
    assert all(more for more, less in zip(_taken(1, 0.5), _taken(1, 0.1), strict=True) if less)
