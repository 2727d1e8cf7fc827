"""Waiting for a server of a benchmark."""

from __future__ import annotations

import asyncio
import sys

import pytest

from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.server import while_running

pytestmark = pytest.mark.anyio


async def test_a_server_that_ends_is_noticed_at_once() -> None:
    """Nobody waits for the answers of a process that is gone."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(3)")
    async with asyncio.timeout(20):
        with pytest.raises(BenchmarkBroken, match="ended with code 3"):
            await while_running(process, asyncio.sleep(60))


async def test_work_that_ends_first_is_returned() -> None:
    """While the process runs its answers are what comes back."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    try:
        assert await while_running(process, asyncio.sleep(0.01, "answers")) == "answers"
    finally:
        process.kill()
        await process.wait()
