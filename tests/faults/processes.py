"""Processes of the product as a service manager runs them: started, killed, started again."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_TOP = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_STOP_S = 40.0
PATIENCE_S = 120.0
"""How long anything may take: far more than it takes, since machines may be busy."""


class Part:
    """`adscent ARGUMENTS` with an environment and a log; `prefix` is a program that runs it."""

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        log: Path,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.arguments, self.environment, self.log = arguments, dict(environment), log
        self.prefix = prefix
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running process."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; it ends with this process, however that ends."""
        assert not self.is_running
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # ours
                [*self.prefix, sys.executable, "-m", "app.cli.main", *self.arguments],
                cwd=_TOP,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, not to its children."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait until the kernel has taken it away."""
        self.send(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process is None or not self.is_running:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def words(self) -> str:
        """Everything that it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


_prctl = ctypes.CDLL(None).prctl


def end_with_parent() -> None:
    """Ask the kernel, in a child, for a SIGTERM when the thread that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def children(pid: int) -> list[int]:
    """The processes that this one has started and that are there."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def workers_of(serve: int) -> list[int]:
    """The worker processes of `adscent serve`: what Python's fork server forked for uvicorn."""
    servers = [pid for pid in children(serve) if b"forkserver" in command_of(pid)]
    return [pid for server in servers for pid in children(server)]


def command_of(pid: int) -> bytes:
    """The command line of a process, empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(condition: Callable[[], object], what: str) -> float:
    """Seconds until the condition held. Fails the test, naming `what`, when it never does."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + PATIENCE_S, f"waited {PATIENCE_S:g} s in vain: {what}"
        time.sleep(0.05)
    return time.monotonic() - started
