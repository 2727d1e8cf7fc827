"""The traffic's process, seen from the stage: started, listened to, told, and ended in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from jobs.demo.children import Child
from jobs.demo.deployment import Deployment
from jobs.demo.ledger import Ledger
from jobs.demo.messages import Order, Tick
from jobs.market import Market

_END_S = 15.0


@dataclass(frozen=True, slots=True)
class Visitors:
    """The process whose requests are the traffic."""

    child: Child
    orders: asyncio.StreamWriter

    def take_off(self, ad_ids: Sequence[int]) -> None:
        """These ads, and no others, are off the market: nobody may choose them, the oracle too."""
        self.orders.write(msgspec.json.encode(Order(list(ad_ids))) + b"\n")


@asynccontextmanager
async def visiting(
    deployment: Deployment, market: Market, ledger: Ledger
) -> AsyncIterator[Visitors]:
    """Traffic while the block lasts; then every request under way is answered and counted."""
    child = await _start(deployment, market)
    orders, ticks = child.process.stdin, child.process.stdout
    assert orders is not None  # noqa: S101  # it was started with pipes
    assert ticks is not None  # noqa: S101
    orders.write(deployment.visitors_key.encode() + b"\n")
    reading = asyncio.create_task(_read(ticks, ledger))
    try:
        yield Visitors(child, orders)
        orders.close()
        await asyncio.wait({reading}, timeout=_END_S)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), _END_S)
    finally:
        reading.cancel()
        await child.stop()


async def _start(deployment: Deployment, market: Market) -> Child:
    numbers = (market.seed, market.shape.start_ms, deployment.port)
    return await Child.start(
        "the visitors' process",
        ["-m", "jobs.demo.traffic", *map(str, numbers)],
        deployment.environment,
        deployment.home / "logs" / "visitors.log",
        piped=True,
    )


async def _read(ticks: asyncio.StreamReader, ledger: Ledger) -> None:
    async for line in ticks:
        ledger.add(msgspec.json.decode(line, type=Tick))
