"""A worker that the database cannot be reached from serves for a while, then not before it knows.

Two workers share a database; one of them reaches it through a proxy that can be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from app.settings import Settings
from app.storage import workers
from app.storage.catalog import Catalog
from app.storage.engine import Database
from tests.contract.conftest import eventually, promote_genesis, running, secrets_of

pytestmark = pytest.mark.anyio
_ALONE_S = 0.6


class Proxy:
    """Passes bytes on to a database until it is cut, and again once it is mended."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def mend(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and take no more."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        self._writers |= {writer, back}
        await asyncio.gather(_copy(reader, back), _copy(there, writer))
        self._writers -= {writer, back}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Pair:
    """A worker that can be cut off, and one that cannot."""

    def __init__(self, cut: FastAPI, other: FastAPI, proxy: Proxy, secrets: dict[str, str]) -> None:
        self.cut, self.other, self.proxy, self._secrets = cut, other, proxy, secrets

    async def call(self, app: FastAPI, scope: str, *call: str, **given: Any) -> httpx.Response:
        """One request to one of them."""
        headers = {"Authorization": f"Bearer {self._secrets[scope]}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(*call, headers=headers, **given)

    async def decide(self) -> httpx.Response:
        """A decision of the worker that can be cut off."""
        body = {"user": {}, "slots": 50, "per_advertiser": 50}
        return await self.call(self.cut, "score", "POST", "/v1/decisions", json=body)

    async def pause(self, ad_id: int) -> httpx.Response:
        """A pause by the other one."""
        return await self.call(
            *(self.other, "admin", "PATCH", f"/v1/ads/{ad_id}"), json={"state": "paused"}
        )


@pytest.fixture
async def pair(database: Database, settings: Settings, catalog: Catalog) -> AsyncIterator[Pair]:
    """Both workers, ready."""
    secrets = await secrets_of(database)
    await promote_genesis(database, settings, catalog)
    parts = urlsplit(str(settings.database_url))
    proxy = Proxy(str(parts.hostname), parts.port or 5432)
    await proxy.mend()
    user = parts.netloc.rpartition("@")[0]
    through = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}"))
    own = replace(settings, acknowledge_timeout_s=0.3, serve_alone_s=_ALONE_S)
    async with AsyncExitStack() as stack:
        cut = await stack.enter_async_context(running(replace(own, database_url=through)))
        other = await stack.enter_async_context(running(own))
        for app in (cut, other):
            await eventually(lambda app=app: app.state.services.state.bundle is not None)
        yield Pair(cut, other, proxy, secrets)
        with suppress(OSError):
            await proxy.mend()


async def _age(database: Database) -> None:
    """Let a minute pass by the database's clock for the worker that does not report."""
    text = """
        UPDATE workers SET seen_at = seen_at - interval '1 minute'
        WHERE seen_at < clock_timestamp() - interval '1 second'
    """
    async with database.begin() as connection:
        await connection.execute(sa.text(text))


def _ads(answer: httpx.Response) -> set[int]:
    return {ad["ad_id"] for ad in answer.json()["ads"]}


async def test_worker_serves_from_memory_for_a_while(pair: Pair) -> None:
    """Cut off, it goes on; after `serve_alone_s` it answers 503 and says that it is not ready."""
    await pair.proxy.cut()
    assert len(_ads(await pair.decide())) == 10
    await asyncio.sleep(_ALONE_S + 0.2)
    refused = await pair.decide()
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert "ADSCENT_SERVE_ALONE_S" in refused.json()["detail"]
    ready = await pair.call(pair.cut, "score", "GET", "/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "cut_off")


async def test_silent_worker_is_waited_for_while_it_may_serve(pair: Pair) -> None:
    """A pause names the worker that may still serve the ad."""
    await pair.proxy.cut()
    answer = await pair.pause(10)
    assert answer.status_code == 202
    assert len(answer.json()["pending"]) == 1


async def test_pause_without_the_silent_worker_holds_on_it(pair: Pair, database: Database) -> None:
    """Once its time is over a pause is confirmed without it, and it never shows the ad again:
    neither cut off nor when it is back."""
    await pair.proxy.cut()
    await asyncio.sleep(1.2)
    await _age(database)
    answer = await pair.pause(10)
    assert (answer.status_code, len(answer.json()["acknowledged"])) == (200, 1)
    assert (await pair.decide()).status_code == 503
    await pair.proxy.mend()
    statuses = []
    async with asyncio.timeout(15):
        while 200 not in statuses:
            decided = await pair.decide()
            statuses.append(decided.status_code)
            assert decided.status_code == 503 or 10 not in _ads(decided)
            await asyncio.sleep(0.005)
    assert (await pair.pause(9)).status_code == 200


async def test_worker_forgotten_by_mistake_serves_again_once_it_is_current(
    pair: Pair, database: Database
) -> None:
    """A worker whose row was taken away enters itself anew and has then every pause."""
    async with database.begin() as connection:
        await connection.execute(sa.text("DELETE FROM workers"))
        await connection.execute(
            sa.text("UPDATE ads SET state = 'paused', version = 2 WHERE id = 10")
        )
        await connection.execute(sa.text("UPDATE catalog_version SET version = 2"))
    async with asyncio.timeout(10):
        decided = await pair.decide()
        while decided.status_code == 503 or 10 in _ads(decided):
            await asyncio.sleep(0.005)
            decided = await pair.decide()
        while len(await workers.look(database)) < 2:  # noqa: ASYNC110 - until the other reports
            await asyncio.sleep(0.01)
    assert len((await pair.pause(9)).json()["acknowledged"]) == 2
