"""What everything on stage shares: the story told so far, the clock, and what the models did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.demo.admin import Admin
from jobs.demo.errors import DemoFailed

Mark = Literal["·", "✓", "✗"]
_LIST = 20
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the story; `mark` tells whether something was kept or broken."""

    at_s: float
    mark: Mark
    text: str


class Story:
    """The lines told so far; `heard` is called with each new one.

    It begins at `start_s` of the monotonic clock. `api`, `dashboard`: the address and a key of
    each, once there is one to use.
    """

    def __init__(self, start_s: float) -> None:
        self.lines: list[Line] = []
        self.heard: Callable[[Line], None] = lambda _: None
        self.api: tuple[str, str] | None = None
        self.dashboard: tuple[str, str] | None = None
        self._start_s = start_s

    def tell(self, text: str, mark: Mark = "·") -> None:
        """Add a line."""
        line = Line(self.elapsed_s, mark, text)
        self.lines.append(line)
        self.heard(line)

    @property
    def elapsed_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._start_s


@dataclass(slots=True)
class Models:
    """The snapshots known so far by id, as `GET /v1/snapshots` tells of them."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    serving: str = ""

    @property
    def trained(self) -> list[dict[str, Any]]:
        """All but the genesis snapshot, the newest first."""
        found = [one for one in self.known.values() if one["parent_id"] is not None]
        return sorted(found, key=lambda one: str(one["id"]), reverse=True)

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Those that the gate did not let serve."""
        return [one for one in self.trained if one["verdict"]["result"] == "refused"]

    async def refresh(self, admin: Admin) -> None:
        """Read the newest ones."""
        _, body = await admin.call("GET", f"/v1/snapshots?limit={_LIST}")
        for item in body["items"]:
            self.known[item["id"]] = item
            if item["is_serving"]:
                self.serving = item["id"]

    async def follow(self, admin: Admin) -> None:
        """Refresh every second until cancelled; a call that fails is counted, and made again."""
        while True:
            with suppress(DemoFailed):  # the ledger has it
                await self.refresh(admin)
            await asyncio.sleep(_LOOK_EVERY_S)
