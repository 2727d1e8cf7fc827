"""`adscent demo`: wired here, from the first line on the screen to the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from app import settings
from app.storage import serving_history, snapshots
from jobs.demo import summary
from jobs.demo.acts import Acts
from jobs.demo.admin import Admin
from jobs.demo.children import Child
from jobs.demo.dashboard import open_dashboard
from jobs.demo.deployment import Deployment, deployed
from jobs.demo.errors import DemoFailed, PartEnded
from jobs.demo.ledger import Ledger
from jobs.demo.process_age import age_s
from jobs.demo.stage import Line, Models, Story
from jobs.demo.view import View, progress, told
from jobs.demo.visitors import Visitors, visiting
from jobs.demo.world import FEATURES, RETRAIN_EVERY_S, SLOTS, demo_market
from jobs.market import Market
from jobs.output import write_report

DEFAULT_S = 90.0
_LEAST_STAGE_S = 20.0
_FIRST_ANSWER_S = 60.0
_FRAME_S = 0.25
_PROGRESS_S = 5.0
_PROMOTIONS = 100_000
_OF_ITSELF = ("training", "canary")
_INTERRUPTED = 130


def run(exit_after: float | None, seed: int, report: Path | None) -> int:
    """Show everything for `exit_after` seconds from the command on, or as long as the acts take.

    Returns 0, 1 when a promise broke or the demo could not go on, 130 when it was interrupted
    before there was anything to sum up. Raises the errors of `app.settings` and `app.storage`, and
    `ReportUnwritable` at the end.
    """
    began_s = time.monotonic() - age_s()
    console, story = Console(highlight=False), Story(began_s)
    demo = _Demo(exit_after or DEFAULT_S, seed, report, console, story, began_s)
    try:
        with asyncio.Runner() as runner:
            return runner.run(demo.run())
    except asyncio.CancelledError:
        return _INTERRUPTED
    except DemoFailed as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1


@dataclass(slots=True)
class _Demo:
    exit_after_s: float
    seed: int
    report: Path | None
    console: Console
    story: Story
    began_s: float
    curtain: asyncio.Event = field(default_factory=asyncio.Event)
    ledger: Ledger = field(default_factory=Ledger)
    models: Models = field(default_factory=Models)
    is_on_stage: bool = False

    async def run(self) -> int:
        """The whole run; the exit code."""
        self._obey_signals()
        self.story.heard = self._print
        seen = await self._shown()
        found = summary.promises(seen)
        summary.print_summary(self.console, seen, found)
        write_report(self.report, summary.report_of(seen, found))
        return 1 if any(one.kept is False for one in found) else 0

    def _obey_signals(self) -> None:
        """On stage the first signal ends the show in order; a second one, or earlier, at once."""
        main = asyncio.current_task()
        assert main is not None  # noqa: S101  # only called from a task

        def end() -> None:
            if self.is_on_stage and not self.curtain.is_set():
                self.curtain.set()
            else:
                main.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)

    async def _shown(self) -> summary.Seen:
        market = demo_market(self.seed, time.time_ns() // 1_000_000)
        async with deployed(settings.from_environment(), market, self.story.tell) as deployment:
            admin = Admin(deployment.port, deployment.admin_key, self.ledger)
            try:
                acts = await self._played(deployment, market, admin)
                with contextlib.suppress(DemoFailed):
                    await self.models.refresh(admin)
            finally:
                await admin.close()
            return await self._seen(deployment, acts)

    async def _played(self, deployment: Deployment, market: Market, admin: Admin) -> Acts:
        async with AsyncExitStack() as stack:
            visitors = await stack.enter_async_context(visiting(deployment, market, self.ledger))
            acts = self._acts(deployment, market, admin, visitors)
            await self._first_answer(deployment)
            self.is_on_stage = True
            await stack.enter_async_context(self._screen())
            opening = open_dashboard(deployment, settings.from_environment(), self.story)
            await stack.enter_async_context(_background(opening))
            await stack.enter_async_context(_background(self.models.follow(admin)))
            await self._until_the_end(acts, deployment, visitors.child)
        return acts

    def _acts(
        self, deployment: Deployment, market: Market, admin: Admin, visitors: Visitors
    ) -> Acts:
        return Acts(
            deployment, market, admin, self.ledger, self.models, self.story, visitors.take_off
        )

    async def _first_answer(self, deployment: Deployment) -> None:
        deadline = time.monotonic() + _FIRST_ANSWER_S
        while not self.ledger.answers:
            deployment.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"no decision was answered: {self.ledger.faults[:3]}")
            await asyncio.sleep(_FRAME_S / 4)
        self.story.tell(f"First answer {self._first_answer_s():.1f} s after the command.")
        self.story.tell(
            f"Visitors come, see {SLOTS} ads each and click by odds that only the market knows."
            f" Every {RETRAIN_EVERY_S:.0f} s a new model learns from what they did."
        )
        self.story.tell(
            f"This ends {self.exit_after_s:.0f} s after the command, or with Ctrl-C;"
            " `--exit-after 900` keeps it for exploring."
        )

    async def _until_the_end(self, acts: Acts, deployment: Deployment, visitors: Child) -> None:
        """Play until the last act is over, someone has seen enough, or a process ends."""
        end_s = max(self.began_s + self.exit_after_s, time.monotonic() + _LEAST_STAGE_S)
        playing = asyncio.create_task(acts.play(time.monotonic(), end_s))
        leaving = asyncio.create_task(self.curtain.wait())
        watching = asyncio.create_task(_watch(deployment, visitors))
        tasks = (playing, leaving, watching)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, PartEnded):
                acts.findings.ended = str(outcome)
            elif isinstance(outcome, Exception):
                raise outcome

    @asynccontextmanager
    async def _screen(self) -> AsyncIterator[None]:
        """The live view in a terminal, otherwise a line every few seconds."""
        if not self.console.is_terminal:
            async with _background(self._progress()):
                yield
            return
        unseen: list[Line] = []
        self.story.heard = unseen.append
        view = View(self.seed, self.exit_after_s, self.ledger, self.models, self.story)
        with Live(view, console=self.console, screen=True, auto_refresh=False) as live:
            async with _background(_frames(live)):
                yield
        self.story.heard = self._print
        for line in unseen:
            self._print(line)

    def _print(self, line: Line) -> None:
        self.console.print(told(line), markup=False, soft_wrap=True)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            text = f"{self.story.elapsed_s:5.1f} s   {progress(self.ledger, self.models)}"
            self.console.print(text, markup=False, soft_wrap=True)

    def _first_answer_s(self) -> float:
        return min(one.sent_s + one.ms / 1000 for one in self.ledger.answers) - self.began_s

    async def _seen(self, deployment: Deployment, acts: Acts) -> summary.Seen:
        promotions = await snapshots.list_promotions(deployment.database, _PROMOTIONS)
        return summary.Seen(
            seed=self.seed,
            seconds=time.monotonic() - self.began_s,
            first_answer_s=self._first_answer_s(),
            was_interrupted=self.curtain.is_set(),
            ledger=self.ledger,
            models=self.models,
            findings=acts.findings,
            promoted=sum(one.reason == "training" for one in promotions),
            by_hand=await _by_hand(deployment),
            norm_ratio=await asyncio.to_thread(
                _norm_ratio, deployment, list(self.ledger.snapshots)
            ),
        )


async def _by_hand(deployment: Deployment) -> int:
    """How often someone else than the stage and training has changed what answers."""
    found = await serving_history.between(deployment.database, limit=_PROMOTIONS)
    return sum(one.actor not in (deployment.actor, *_OF_ITSELF) for one in found)


def _norm_ratio(deployment: Deployment, served: list[str]) -> float:
    # Imported late: it brings the trainer and its compiler, which would delay the first answer.
    from jobs.demo.norms import served_norm_ratio

    return served_norm_ratio(deployment.home / "snapshots", FEATURES, served)


async def _frames(live: Live) -> None:
    while True:
        live.refresh()
        await asyncio.sleep(_FRAME_S)


async def _watch(deployment: Deployment, visitors: Child) -> None:
    """Run until a process ends that should not. Raises `PartEnded`."""
    while True:
        deployment.check()
        visitors.check()
        await asyncio.sleep(_FRAME_S)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run beside the block and end with it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
