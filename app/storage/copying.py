"""What a query gives, by binary COPY: the fastest way for many rows."""

from __future__ import annotations

import asyncio
from typing import Any

from app.storage.binary_rows import Impressions
from app.storage.incoming import ROOM, Incoming


async def content(connection: Any, query: str, *arguments: object) -> bytearray:
    """The bytes of a COPY."""
    data = bytearray()

    async def gather(part: bytes) -> None:
        data.extend(part)

    await connection.copy_from_query(query, *arguments, output=gather, format="binary")
    return data


async def impressions(
    connection: Any, query: str, *arguments: object, room: int = ROOM
) -> Impressions:
    """The impressions of a query for `Incoming`'s columns. `room`: as it takes it."""
    incoming, _ = await _incoming(connection, room, query, *arguments)
    return await asyncio.to_thread(incoming.all)


async def impressions_unless_more(
    most: int, connection: Any, query: str, *arguments: object, room: int = ROOM
) -> Impressions | None:
    """The same; None where there are more than `most`."""
    incoming, count = await _incoming(connection, room, query, *arguments)
    return None if count > most else await asyncio.to_thread(incoming.all)


async def _incoming(
    connection: Any, room: int, query: str, *arguments: object
) -> tuple[Incoming, int]:
    """What came and how many rows; a thread has taken most of it apart while more came."""
    incoming, parting = Incoming(room), _Parting()

    async def gather(part: bytes) -> None:
        incoming.add(part)
        if incoming.is_much:
            parting.begin(incoming)

    status: str = await connection.copy_from_query(
        query, *arguments, output=gather, format="binary"
    )
    await parting.end()
    return incoming, int(status.removeprefix("COPY "))


class _Parting:
    """The thread that takes rows apart: one at a time."""

    def __init__(self) -> None:
        self._running: asyncio.Future[None] | None = None

    def begin(self, incoming: Incoming) -> None:
        """Take apart what is there, unless the last time is not over."""
        if self._running is not None:
            if not self._running.done():
                return
            self._running.result()
        self._running = asyncio.ensure_future(asyncio.to_thread(incoming.take_apart))

    async def end(self) -> None:
        if self._running is not None:
            await self._running
