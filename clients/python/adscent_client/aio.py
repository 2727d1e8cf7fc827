"""The client for asyncio: the same calls as `adscent_client.client`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self, Unpack

import httpx

from adscent_client import answers, calls
from adscent_client.answers import Event, Item, Page
from adscent_client.call import Answer, Call, Features, next_page
from adscent_client.calls import DecideOptions, ScoreOptions
from adscent_client.errors import AdscentError, Unreachable
from adscent_client.exchange import arguments, headers_of, read
from adscent_client.retrying import Retries


class AsyncClient:
    """See `Client`; to be used within one event loop."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 5.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_s, self._retries = timeout_s, retries
        self._http = httpx.AsyncClient(base_url=url, headers=headers_of(key), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, call: Call[Answer]) -> Answer:
        """Make a call, again where that is harmless and may help. Raises `AdscentError`."""
        for attempt in range(1, self._retries.attempts + 1):
            try:
                return await self._once(call)
            except AdscentError as error:
                wait_s = self._retries.wait_s(attempt, error, random.random())  # noqa: S311 - jitter
                if wait_s is None or not call.may_follow(error):
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    async def items(self, call: Call[Page[Item]]) -> AsyncIterator[Item]:
        """Every item of a list, page after page."""
        following: Call[Page[Item]] | None = call
        while following is not None:
            page = await self.call(following)
            for item in page.items:
                yield item
            following = next_page(following, page)

    async def decide(
        self, user: Features, slots: int = 1, **page: Unpack[DecideOptions]
    ) -> answers.Decision:
        """Ads for the slots of one page; `page`: the options of `calls.decide`."""
        return await self.call(calls.decide(user, slots, **page))

    async def score(
        self, user: Features, ad_ids: Iterable[int], **options: Unpack[ScoreOptions]
    ) -> answers.Scores:
        """Scores of the candidates for one user; `options`: those of `calls.score`."""
        return await self.call(calls.score(user, ad_ids, **options))

    async def report(self, events: Iterable[Event]) -> answers.Stored:
        """Up to 1,000 events; returns once they are durable."""
        return await self.call(calls.report(events))

    async def pause(self, ad_id: int) -> answers.AdChange:
        """Pause an ad; the answer's `holds_everywhere`: no worker shows it any more."""
        return await self.call(calls.patch_ad(ad_id, state="paused"))

    async def resume(self, ad_id: int) -> answers.AdChange:
        """Let a paused ad serve again."""
        return await self.call(calls.patch_ad(ad_id, state="active"))

    def impression_url(self, ad: answers.DecidedAd) -> str:
        """The address of the pixel that a page shows with the ad; needs no key."""
        return str(self._http.base_url.join(f"/v1/e/i/{ad.token}"))

    def click_url(self, ad: answers.DecidedAd) -> str:
        """The address that counts a click and leads on to the ad's landing page; needs no key."""
        return str(self._http.base_url.join(f"/v1/e/c/{ad.token}"))

    async def _once(self, call: Call[Answer]) -> Answer:
        try:
            sent = arguments(call, self._timeout_s)
            answer = await self._http.request(call.method, call.path, **sent)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{call.method} {call.path}: {error or type(error).__name__}"
            ) from error
        return read(call, answer)
