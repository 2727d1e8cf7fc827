"""Looking into the database from outside of the product, over connections of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg

_T = TypeVar("_T")
NAME = "faults"
"""The application name of the test's own sessions: faults that cut connections spare them."""

_ATTEMPTS = 20


class Background:
    """An event loop in a thread of its own, for what goes on while a test waits."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T], seconds: float = 120.0) -> _T:
        """The result of a coroutine, run in the background thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Look:
    """Statements over a session that is opened when it is needed, and again when it was lost."""

    def __init__(self, background: Background, url: str) -> None:
        self.url, self._background = url, background
        self._connection: Any = None

    def fetch(self, query: str, *arguments: object) -> list[Any]:
        """The rows of a query."""
        return self._background.run(self._fetch(query, arguments))

    def value(self, query: str, *arguments: object) -> Any:
        """The first column of the first row."""
        return self.fetch(query, *arguments)[0][0]

    def run(self, statement: str) -> None:
        """Execute statements that return nothing."""
        self._background.run(self._run(statement))

    def close(self) -> None:
        """Close the session."""
        self._background.run(self._close())

    @contextmanager
    def holding(self, *statements: str) -> Iterator[Look]:
        """A transaction of its own that has executed these statements, committed at the end."""
        own = Look(self._background, self.url)
        own.run("BEGIN")
        try:
            for statement in statements:
                own.run(statement)
            yield own
            own.run("COMMIT")
        finally:
            own.close()

    async def _connected(self) -> Any:
        for attempt in range(_ATTEMPTS):
            if self._connection is not None and not self._connection.is_closed():
                break
            try:
                self._connection = await asyncpg.connect(
                    self.url, timeout=10, server_settings={"application_name": NAME}
                )
            except (OSError, asyncpg.CannotConnectNowError):  # it is about to start
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.5)
        return self._connection

    async def _fetch(self, query: str, arguments: tuple[object, ...]) -> list[Any]:
        return list(await (await self._connected()).fetch(query, *arguments))

    async def _run(self, statement: str) -> None:
        await (await self._connected()).execute(statement)

    async def _close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
