"""The first line against invalid traffic: clicks that come too often are set aside, not dropped.

Counts are of one worker, in windows that follow each other; nothing of them is stored. An address
is only ever kept as a hash under a random salt, which is forgotten every day.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from models.types import Event

Rule = Literal["token", "address", "ad"]

RULES: tuple[Rule, ...] = ("token", "address", "ad")
_SALT_S = 86_400.0
_MOST = 200_000
"""Keys of one window: beyond them only those that are known already are counted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many clicks of one window are taken for human.

    `token`: of one decided ad; `address`: of one address; `share`: clicks of an ad for each of its
    impressions, judged from `least` clicks on. `window_s`: its length in seconds.
    """

    window_s: float = 60.0
    token: int = 5
    address: int = 30
    share: float = 0.5
    least: int = 100


@dataclass(slots=True)
class _Window:
    """What was counted since `start_s`: clicks by rule and key, impressions by ad."""

    start_s: float
    clicks: dict[Rule, Counter[Hashable]] = field(
        default_factory=lambda: {rule: Counter() for rule in RULES}
    )
    shown: Counter[int] = field(default_factory=Counter)

    def add(self, rule: Rule, key: Hashable) -> int:
        """Count a click of this key; how many there are."""
        counted = self.clicks[rule]
        if key in counted or len(counted) < _MOST:
            counted[key] += 1
        return counted[key]

    def show(self, ad_id: int) -> None:
        """Count an impression of this ad."""
        if ad_id in self.shown or len(self.shown) < _MOST:
            self.shown[ad_id] += 1


class ClickRules:
    """Counts events as they come and names the rule that a click breaks. For one thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window, self._before = _Window(float("-inf")), _Window(float("-inf"))
        self._salt, self._salted_s = secrets.token_bytes(16), float("-inf")

    def judge(self, event: Event, address: str | None, now_s: float) -> Rule | None:
        """The rule that this event breaks, None for one that is taken for human.

        `address`: of the browser, None where the events come from a server; `now_s`: seconds of a
        clock that never goes back. Only clicks can break a rule; every repeat counts.
        """
        self._turn(now_s)
        if event.type == "impression":
            self._window.show(event.ad_id)
        if event.type != "click":
            return None
        token = (event.decision_id, event.slot)
        counted = {"token": self._window.add("token", token)}
        if address is not None:
            counted["address"] = self._window.add("address", self._hashed(address, now_s))
        if counted["token"] > self._limits.token:
            return "token"
        if counted.get("address", 0) > self._limits.address:
            return "address"
        return "ad" if self._is_too_many(self._window.add("ad", event.ad_id), event) else None

    def take_back(self, event: Event, address: str | None, now_s: float) -> None:
        """Forget a judged event that could not be stored: its sender is asked to repeat it."""
        if event.type == "impression":
            _less(self._window.shown, event.ad_id)
        if event.type != "click":
            return
        _less(self._window.clicks["token"], (event.decision_id, event.slot))
        if event.quarantined_by in (None, "ad"):  # else it was not counted by its ad
            _less(self._window.clicks["ad"], event.ad_id)
        if address is not None:
            _less(self._window.clicks["address"], self._hashed(address, now_s))

    def _is_too_many(self, clicks: int, event: Event) -> bool:
        """An ad's clicks against its impressions of this window and the one before."""
        if clicks <= self._limits.least:
            return False
        shown = self._window.shown[event.ad_id] + self._before.shown[event.ad_id]
        return clicks > self._limits.share * shown

    def _turn(self, now_s: float) -> None:
        if now_s - self._window.start_s >= self._limits.window_s:
            self._before, self._window = self._window, _Window(now_s)

    def _hashed(self, address: str, now_s: float) -> bytes:
        if now_s - self._salted_s >= _SALT_S:
            self._salt, self._salted_s = secrets.token_bytes(16), now_s
        return hashlib.blake2b(address.encode(), key=self._salt, digest_size=8).digest()


def _less(counted: Counter[Any], key: Hashable) -> None:
    """Count one less, if there is one: its window may have ended meanwhile."""
    if counted[key] > 1:
        counted[key] -= 1
    else:
        del counted[key]
