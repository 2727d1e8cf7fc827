"""A mount namespace of the test's own: small disks and files that only its processes see.

It ends with the process that holds it, so nothing stays mounted, however the test ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.processes import end_with_parent


class Namespace:
    """What was mounted; `prefix` runs a program inside of it."""

    def __init__(self, holder: int) -> None:
        self._holder = holder

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to write before a command."""
        return ("nsenter", f"--mount=/proc/{self._holder}/ns/mnt")

    def path(self, inside: Path) -> Path:
        """Where a path of the inside is seen from the outside."""
        return Path(f"/proc/{self._holder}/root") / inside.relative_to("/")


@contextmanager
def mounted(*commands: str) -> Iterator[Namespace]:
    """Run shell commands in a new mount namespace. Skips the test where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    script = " && ".join((*commands, "echo ready", "exec sleep infinity"))
    holder = subprocess.Popen(  # noqa: S603  # commands of ours
        ["unshare", "--mount", "sh", "-c", script],  # noqa: S607  # where the system has it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=end_with_parent,
    )
    assert holder.stdout is not None
    try:
        said = holder.stdout.readline().strip()
        if said != "ready":
            pytest.skip(f"mounting is not permitted here: {said}")
        yield Namespace(holder.pid)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@contextmanager
def filled(path: Path) -> Iterator[int]:
    """A file that takes all that is left on its disk; gone at the end. Gives its bytes."""
    size = 0
    with path.open("wb", buffering=0) as file:
        for step in (1 << 20, 4096):
            try:
                while True:
                    size += file.write(bytes(step))
            except OSError:
                continue
    try:
        yield size
    finally:
        path.unlink()
