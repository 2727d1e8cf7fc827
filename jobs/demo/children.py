"""Processes of the demo: each ends with the demo, even when that is killed without a word."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from jobs.demo.errors import PartEnded

_PR_SET_PDEATHSIG = 1
_END_S = 12.0
_LINE_BYTES = 1 << 22
_LAST_LINES = 5


class Child:
    """A Python process with a log file; `name` is what people call it."""

    def __init__(self, name: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.name, self.log, self.process = name, log, process

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        piped: bool = False,
    ) -> Child:
        """Start `python ARGUMENTS` with its output in `log`.

        If it is `piped`, its standard input and output are the caller's instead.
        """
        pipe = asyncio.subprocess.PIPE
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=pipe if piped else asyncio.subprocess.DEVNULL,
                stdout=pipe if piped else written,
                stderr=written,
                env=environment,
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C in the terminal is for the demo
                preexec_fn=_ends_with(os.getpid()),
            )
        return cls(name, log, process)

    def check(self) -> None:
        """Raise `PartEnded`, with the last lines of its log, unless it runs."""
        if self.process.returncode is not None:
            raise PartEnded(
                f"{self.name} has ended with {self.process.returncode}: {self.last_words()}"
            )

    def last_words(self) -> str:
        """The last lines of its log, and where the rest is."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return " | ".join(lines) + f" (all of it: {self.log})"

    async def stop(self) -> None:
        """Ask it to end, then make it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.returncode is not None:
                return
            # Not `send_signal`: it collects a child that has just ended, and asyncio misses it.
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), _END_S)


def _ends_with(parent: int) -> Callable[[], None] | None:
    """What the child runs first: the kernel shall end it when the demo's main thread is gone.

    On Linux; elsewhere a demo that is killed leaves `serve` and `jobs` behind.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
