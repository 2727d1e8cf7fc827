"""A COPY whose rows a thread takes apart while more come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from app.storage import copying
from tests.unit.test_binary_rows import Shown, copied

pytestmark = pytest.mark.anyio


class Sender:
    """Stands for a connection of the driver: it hands over prepared data as fast as it can."""

    def __init__(self, data: bytes, rows: int) -> None:
        self.data, self.rows = data, rows

    async def copy_from_query(
        self,
        query: str,  # noqa: ARG002
        *,
        output: Callable[[bytes], Awaitable[None]],
        format: str,  # noqa: A002, ARG002
    ) -> str:
        """All parts, without a pause in between."""
        for start in range(0, len(self.data), 1 << 20):
            await output(self.data[start : start + (1 << 20)])
        return f"COPY {self.rows}"


@pytest.fixture(scope="module")
def sender() -> Sender:
    """30 MB, so that the thread has begun and is not done when the last part comes."""
    shown = [Shown(n, bytes(16), 0, features=bytes(200)) for n in range(120_000)]
    return Sender(copied(shown), len(shown))


async def test_rows_come_once_wherever_the_thread_is(sender: Sender) -> None:
    """Every row is there, and in its place, each time."""
    for _ in range(3):
        found = await copying.impressions(sender, "SELECT")
        assert np.array_equal(found.keys.time_us, np.arange(sender.rows))


async def test_more_rows_than_are_wanted_are_none(sender: Sender) -> None:
    """So many are all of them; one fewer wanted, and there is nothing."""
    assert await copying.impressions_unless_more(sender.rows, sender, "SELECT") is not None
    assert await copying.impressions_unless_more(sender.rows - 1, sender, "SELECT") is None
