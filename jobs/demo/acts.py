"""What happens on stage, one act after the other, while the traffic goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.demo.admin import Admin, Change
from jobs.demo.deployment import Deployment
from jobs.demo.errors import ActFailed
from jobs.demo.ledger import Ban, Hold, Ledger
from jobs.demo.stage import Models, Story
from jobs.market import Market

ABSURD_STEP = 1_000_000
_CUES = (0.18, 0.34, 0.44, 0.56, 0.82)
_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1
_ENOUGH_SHOWN = 5


@dataclass(slots=True)
class Findings:
    """What the acts have shown; None until an act has been played.

    `ended`: which process ended in the middle of the run, if one did.
    """

    paused: Ban | None = None
    returned: bool | None = None
    retired: Ban | None = None
    absurd_refused: bool | None = None
    absurd_snapshot: str | None = None
    rolled_back: Hold | None = None
    ended: str | None = None
    faults: list[str] = field(default_factory=list)


class Acts:
    """Plays the acts in order, each at its share of the run or when what it needs is there."""

    def __init__(
        self,
        deployment: Deployment,
        market: Market,
        admin: Admin,
        ledger: Ledger,
        models: Models,
        story: Story,
        take_off: Callable[[Sequence[int]], None],
    ) -> None:
        self._deployment, self._market, self._admin = deployment, market, admin
        self._ledger, self._models, self._story = ledger, models, story
        self._take_off = take_off
        self.findings = Findings()

    async def play(self, start_s: float, end_s: float) -> None:
        """All acts, between two times of the monotonic clock; then wait for the end."""
        acts = (self._pause, self._return, self._retire, self._absurd, self._roll_back)
        for cue, act in zip(_CUES, acts, strict=True):
            await _sleep_until(start_s + cue * (end_s - start_s))
            await self._play(act)
        await _sleep_until(end_s)

    async def _play(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except ActFailed as error:
            self.findings.faults.append(str(error))
            self._story.tell(str(error), "✗")

    async def _pause(self) -> None:
        await self._until(lambda: self._ledger.most_shown()[1] >= _ENOUGH_SHOWN, "ads to be shown")
        ad_id, count = self._ledger.most_shown()
        self._story.tell(f"Ad {ad_id} was shown {count} times in 5 s. Now its owner pauses it.")
        change = await self._admin.set_state(ad_id, "paused")
        ban = self.findings.paused = self._ledger.ban(ad_id, "paused", change.confirmed_s)
        self._take_off([ad_id])
        reason = await self._reason(ad_id)
        self._story.tell(
            f"{_confirmed(change)} The server now calls it {reason!r}. Every decision from here on"
            " is checked for it.",
            "✓" if reason == "paused" else "✗",
        )
        await self._until(lambda: ban.checked > 0, "decisions after the pause")

    async def _return(self) -> None:
        ban = self.findings.paused
        if ban is None:
            raise ActFailed("no ad is paused, so none returns")
        ban.until_s = time.monotonic()
        mark = "✗" if ban.broken else "✓"
        self._story.tell(
            f"{ban.checked:,} decisions later ad {ban.ad_id} was shown {ban.broken} times. It"
            " comes back.",
            mark,  # type: ignore[arg-type]  # one of the two marks above
        )
        change = await self._admin.set_state(ban.ad_id, "active")
        self._take_off([])
        reason = await self._reason(ban.ad_id)
        self.findings.returned = reason is None
        if reason is not None:
            raise ActFailed(f"ad {ban.ad_id} is active again, but the server calls it {reason!r}")
        await self._seen_again(ban.ad_id, change.confirmed_s)

    async def _seen_again(self, ad_id: int, since_s: float) -> None:
        for _ in range(30):
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._ledger.shown_since(ad_id, since_s):
                ms = (time.monotonic() - since_s) * 1000
                self._story.tell(
                    f"Ad {ad_id} is eligible, and was shown again in {ms:.0f} ms.", "✓"
                )
                return
        self._story.tell(f"Ad {ad_id} is eligible again; by now others are worth more.", "✓")

    async def _retire(self) -> None:
        paused = () if self.findings.paused is None else (self.findings.paused.ad_id,)
        shown = self._ledger.most_shown
        await self._until(lambda: shown(paused)[1] >= _ENOUGH_SHOWN, "another ad to be shown")
        ad_id, count = shown(paused)
        self._story.tell(f"Ad {ad_id} ({count} times in 5 s) is retired: that is final.")
        change = await self._admin.set_state(ad_id, "retired")
        self.findings.retired = self._ledger.ban(ad_id, "retired", change.confirmed_s)
        self._take_off([ad_id])
        self._story.tell(_confirmed(change), "✓")

    async def _absurd(self) -> None:
        await self._until(lambda: len(self._models.trained) > 0, "a first trained snapshot")
        self._story.tell(
            f"Someone starts a training run with a step size of {ABSURD_STEP:,} instead of 1."
        )
        run = await self._training({"step_size": ABSURD_STEP})
        self.findings.absurd_snapshot = run["snapshot_id"]
        self.findings.absurd_refused = run["state"] == "refused"
        if run["state"] != "refused":
            raise ActFailed(f"the absurd run ended as {run['state']!r}: {run['reasons']}")
        reason = run["reasons"][-1]
        self._story.tell(f"The gate refused its snapshot; the old one serves on. {reason}.", "✓")

    async def _training(self, overrides: dict[str, object]) -> dict[str, Any]:
        """Ask for a run until one had events to learn from; its end."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            _, run = await self._admin.call("POST", "/v1/retrains", overrides)
            while run["state"] in ("requested", "running") and time.monotonic() < deadline:
                await asyncio.sleep(2 * _LOOK_EVERY_S)
                _, run = await self._admin.call("GET", f"/v1/retrains/{run['id']}")
            # `failed`: the scheduled run was faster and took the events.
            if run["state"] not in ("empty", "failed"):
                return dict(run)
        raise ActFailed(f"the training run did not end in {_PATIENCE_S:.0f} s")

    async def _roll_back(self) -> None:
        await self._until(lambda: len(self._models.trained) > 0, "a trained snapshot to leave")
        await self._models.refresh(self._admin)
        before = self._models.serving
        asked_s = time.monotonic()
        _, serving = await self._admin.call("POST", "/v1/snapshots/rollback")
        target = str(serving["snapshot_id"])
        self._story.tell(
            f"Rollback: from snapshot …{before[-6:]} to the one before, …{target[-6:]}."
        )
        workers = await self._all_hold(target)
        now_s = time.monotonic()
        self.findings.rolled_back = self._ledger.hold(target, now_s)
        self._story.tell(
            f"{workers} of {workers} workers serve it after {(now_s - asked_s) * 1000:.0f} ms. It"
            " is pinned: new snapshots are trained and judged, but wait.",
            "✓",
        )

    async def _all_hold(self, snapshot_id: str) -> int:
        """Wait until every worker says that it serves the snapshot; how many they are."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            workers = await self._deployment.workers()
            if workers and all(str(one.snapshot_id) == snapshot_id for one in workers):
                return len(workers)
            await asyncio.sleep(_LOOK_EVERY_S / 4)
        raise ActFailed(f"not all workers serve snapshot {snapshot_id} after the rollback")

    async def _reason(self, ad_id: int) -> str | None:
        """Why the server would not show the ad to a visitor that it targets; None if it would."""
        user = self._targeted_visitor(ad_id)
        _, body = await self._admin.call("POST", "/v1/score", {"user": user, "ad_ids": [ad_id]})
        reason = body["ads"][0]["reason"]
        return None if reason is None else str(reason)

    def _targeted_visitor(self, ad_id: int) -> dict[str, object]:
        visitors = self._market.visitors(np.random.default_rng(ad_id), 5_000)
        campaign = np.broadcast_to(self._market.ads.campaign[ad_id - 1], len(visitors))
        reached = self._market.ads.audience.includes(campaign, visitors.bits)
        if not reached.any():
            raise ActFailed(f"no visitor was found that ad {ad_id} targets")
        return dict(visitors.features(int(reached.argmax())))

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                raise ActFailed(f"waited {_PATIENCE_S:.0f} s for {what}")
            await asyncio.sleep(_LOOK_EVERY_S)


def _confirmed(change: Change) -> str:
    return f"{change.workers} of {change.workers} workers confirmed in {change.ms:.0f} ms."


async def _sleep_until(time_s: float) -> None:
    await asyncio.sleep(max(time_s - time.monotonic(), 0.0))
