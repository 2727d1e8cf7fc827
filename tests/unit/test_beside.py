"""Work beside the requests: done elsewhere, at a lower priority, its faults told."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from app.beside import beside

pytestmark = pytest.mark.anyio


async def test_what_a_function_returns_comes_back() -> None:
    """The caller gets the result of a call that another thread made."""

    def added(one: int, *, other: int) -> tuple[int, int]:
        return one + other, threading.get_ident()

    total, thread = await beside(added, 1, other=2)
    assert total == 3
    assert thread != threading.get_ident()


async def test_a_fault_comes_back() -> None:
    """What the function raises is raised where its result was awaited."""
    with pytest.raises(ZeroDivisionError):
        await beside(lambda: 1 // 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
async def test_its_threads_give_way() -> None:
    """Their priority is lower than the caller's, which stays what it was."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = priority()
    assert await beside(priority) == min(19, before + 5)
    assert priority() == before
