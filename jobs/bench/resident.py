"""Resident memory of this process, as the kernel counts it (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import msgspec

_STATUS = Path("/proc/self/status")
_EVERY_S = 0.01


class Resident(msgspec.Struct, frozen=True):
    """Bytes: all that is resident, what of it is private, what is pages of mapped files.

    Pages of files are given back as soon as anyone needs the memory; private ones are not.
    """

    total: int
    private: int
    mapped: int


def resident() -> Resident:
    """What is resident now."""
    found = _status()
    mapped = found["RssFile"] + found["RssShmem"]
    return Resident(found["RssAnon"] + mapped, found["RssAnon"], mapped)


def highest() -> int:
    """The most bytes that were ever resident in this process at once, by the kernel's own count."""
    return _status()["VmHWM"]


def smaps(pid: int | str) -> dict[str, int]:
    """Bytes of a process's memory by kind, as in /proc/<pid>/smaps_rollup: Rss, Pss and others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    lines = (line.split() for line in text.splitlines()[1:])
    return {name.rstrip(":"): int(rest[0]) * 1024 for name, *rest in lines}


def _status() -> dict[str, int]:
    lines = (line.split() for line in _STATUS.read_text(encoding="ascii").splitlines())
    return {name.rstrip(":"): int(rest[0]) * 1024 for name, *rest in lines if rest[-1:] == ["kB"]}


class Watch:
    """Looks every few ms, in a thread, for the length of a `with` block.

    `peak` is the moment at which most was resident; `most_private` the most that was private.
    """

    def __init__(self) -> None:
        self.peak = resident()
        self.most_private = self.peak.private
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_EVERY_S):
            now = resident()
            self.peak = max(self.peak, now, key=lambda seen: seen.total)
            self.most_private = max(self.most_private, now.private)
