"""What the supervisor of the embedded PostgreSQL asks of the operating system."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

STOP_S = 15.0
"""How long PostgreSQL is given for each way of being stopped."""


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask PostgreSQL to stop fast, then at once, then end it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        wait_until(lambda: process.poll() is not None, STOP_S)


def sitting_in(data: Path) -> list[int]:
    """The processes whose working folder is `data`: PostgreSQL and its children, on Linux."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").readlink() == data:
                found.append(int(entry.name))
        except OSError:  # it ended, or it is another user's
            continue
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def locked(file: IO[bytes], how: int) -> bool:
    """Whether the flock could be had; `how` is LOCK_EX or LOCK_SH."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition held within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port(wanted: int = 0) -> int:
    """`wanted` if it is free on 127.0.0.1, else 0; any free one for 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that are free."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def write_private(path: Path, text: str) -> None:
    """Write aside and rename, readable by the owner alone from the first byte on."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    aside.replace(path)
