"""The client for ordinary code; `adscent_client.aio` has the one for asyncio."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
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


class Client:
    """Calls one Adscent over kept connections; safe to share between threads.

    `url`: such as `http://127.0.0.1:8080`; `key`: an API key with the scopes that the calls need;
    `timeout_s`: the longest wait for one answer; `retries`: see `Retries`.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 5.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._timeout_s, self._retries = timeout_s, retries
        self._http = httpx.Client(base_url=url, headers=headers_of(key), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, call: Call[Answer]) -> Answer:
        """Make a call, again where that is harmless and may help. Raises `AdscentError`."""
        for attempt in range(1, self._retries.attempts + 1):
            try:
                return self._once(call)
            except AdscentError as error:
                wait_s = self._retries.wait_s(attempt, error, random.random())  # noqa: S311 - jitter
                if wait_s is None or not call.may_follow(error):
                    raise
            time.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def items(self, call: Call[Page[Item]]) -> Iterator[Item]:
        """Every item of a list, page after page."""
        following: Call[Page[Item]] | None = call
        while following is not None:
            page = self.call(following)
            yield from page.items
            following = next_page(following, page)

    def decide(
        self, user: Features, slots: int = 1, **page: Unpack[DecideOptions]
    ) -> answers.Decision:
        """Ads for the slots of one page; `page`: the options of `calls.decide`."""
        return self.call(calls.decide(user, slots, **page))

    def score(
        self, user: Features, ad_ids: Iterable[int], **options: Unpack[ScoreOptions]
    ) -> answers.Scores:
        """Scores of the candidates for one user; `options`: those of `calls.score`."""
        return self.call(calls.score(user, ad_ids, **options))

    def report(self, events: Iterable[Event]) -> answers.Stored:
        """Up to 1,000 events; returns once they are durable."""
        return self.call(calls.report(events))

    def pause(self, ad_id: int) -> answers.AdChange:
        """Pause an ad; the answer's `holds_everywhere`: no worker shows it any more."""
        return self.call(calls.patch_ad(ad_id, state="paused"))

    def resume(self, ad_id: int) -> answers.AdChange:
        """Let a paused ad serve again."""
        return self.call(calls.patch_ad(ad_id, state="active"))

    def impression_url(self, ad: answers.DecidedAd) -> str:
        """The address of the pixel that a page shows with the ad; needs no key."""
        return str(self._http.base_url.join(f"/v1/e/i/{ad.token}"))

    def click_url(self, ad: answers.DecidedAd) -> str:
        """The address that counts a click and leads on to the ad's landing page; needs no key."""
        return str(self._http.base_url.join(f"/v1/e/c/{ad.token}"))

    def _once(self, call: Call[Answer]) -> Answer:
        try:
            sent = arguments(call, self._timeout_s)
            answer = self._http.request(call.method, call.path, **sent)
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{call.method} {call.path}: {error or type(error).__name__}"
            ) from error
        return read(call, answer)
