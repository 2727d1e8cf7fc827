"""Catching a training run of a real `adscent jobs` in one of its phases.

Nothing in the product helps: a lock of another session holds it where it waits for the database;
elsewhere its folder and its processor time are watched closely, and it is stopped when they say
where it is.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from tests.faults.deployment import Deployment
from tests.faults.processes import PATIENCE_S, processor_s, wait_for

_ATTEMPTS = 8

Phase = Literal["read", "train", "write", "rename", "record", "notify"]
PHASES: tuple[Phase, ...] = ("read", "train", "write", "rename", "record", "notify")

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND application_name = 'adscent' AND query ILIKE $1
"""
_CHUNK = "%features from events%"
_ADS = "%from ads%"
_CURSOR = "%training_cursor%for update%"
_PROMOTION = "%insert into promotions%"


@contextmanager
def held(deployment: Deployment, phase: Phase, count: int) -> Iterator[None]:
    """A run over `count` new impressions that is in this phase, its process stopped or waiting.

    At the end of the block whatever held it lets go, so kill the process before.
    """
    with _HOLDERS[phase](deployment, count):
        yield


@contextmanager
def _waits(deployment: Deployment, count: int, lock: str, query: str) -> Iterator[None]:
    deployment.ingest(count)
    with deployment.look.holding(lock):
        _wait(deployment, query)
        yield


@contextmanager
def _reads(deployment: Deployment, count: int) -> Iterator[None]:
    """The copying of the chunk waits for a table that another session has for itself."""
    with _waits(deployment, count, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE", _CHUNK):
        yield


@contextmanager
def _trains(deployment: Deployment, count: int) -> Iterator[None]:
    """Held before the catalog is read, let go, and stopped in the arithmetic that follows."""

    def approach() -> None:
        with _waits(deployment, count, "LOCK TABLE ads IN ACCESS EXCLUSIVE MODE", _ADS):
            used = processor_s(deployment.jobs.pid)
        _spin(lambda: processor_s(deployment.jobs.pid) > used + 0.1)

    _stop_after(deployment, approach, lambda: not _unrecorded(deployment))
    assert _is_running(deployment)
    yield


@contextmanager
def _writes(deployment: Deployment, count: int) -> Iterator[None]:
    """Stopped once the first bytes of the folder are there and its final name is not."""

    def approach() -> None:
        deployment.ingest(count)
        _spin(lambda: any(_files(folder) for folder in _unrecorded(deployment, ".partial")))

    _stop_after(deployment, approach, lambda: bool(_unrecorded(deployment, ".partial")))
    yield


def _stop_after(
    deployment: Deployment, approach: Callable[[], None], is_there: Callable[[], bool]
) -> None:
    """Stop the process where `approach` leads; again with the next run when it was too fast."""
    for _ in range(_ATTEMPTS):
        approach()
        deployment.jobs.send(signal.SIGSTOP)
        if is_there() and _is_running(deployment):
            return
        deployment.jobs.send(signal.SIGCONT)
        wait_for(lambda: not _is_running(deployment), "the end of the run that was too fast")
    raise AssertionError("every run was faster than the test")


@contextmanager
def _renamed(deployment: Deployment, count: int) -> Iterator[None]:
    """The folder has its name; the transaction that records it waits at its first statement."""
    lock = "SELECT FROM training_cursor FOR UPDATE"
    with _waits(deployment, count, lock, _CURSOR):
        assert _unrecorded(deployment, "")
        yield


@contextmanager
def _records(deployment: Deployment, count: int) -> Iterator[None]:
    """Cursor, snapshot and run are written, not committed: the promotion waits."""
    with _waits(deployment, count, "LOCK TABLE promotions IN SHARE MODE", _PROMOTION):
        yield


@contextmanager
def _notifies(deployment: Deployment, count: int) -> Iterator[None]:
    """Committed, and nobody hears of it: every listener was cut off just before."""
    lock = "LOCK TABLE promotions IN SHARE MODE"
    with _waits(deployment, count, lock, _PROMOTION):
        cut(deployment, "query ILIKE 'LISTEN%'")
    _spin(lambda: not _is_running(deployment))
    yield


_HOLDERS: dict[Phase, Callable[[Deployment, int], AbstractContextManager[None]]] = {
    "read": _reads,
    "train": _trains,
    "write": _writes,
    "rename": _renamed,
    "record": _records,
    "notify": _notifies,
}


def cut(deployment: Deployment, condition: str = "true") -> int:
    """End sessions of the product that fulfil a condition; how many there were."""
    found: int = deployment.look.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"  # noqa: S608  # ours
        f" WHERE application_name = 'adscent' AND ({condition})"
    )
    return found


def _wait(deployment: Deployment, query: str) -> None:
    wait_for(lambda: deployment.look.value(_WAITING, query), query)


def _spin(condition: Callable[[], bool]) -> None:
    """Look without a pause: what is waited for may be over within milliseconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "never seen"


def _is_running(deployment: Deployment) -> bool:
    return bool(deployment.look.value("SELECT count(*) FROM retrain_runs WHERE state = 'running'"))


def _unrecorded(deployment: Deployment, suffix: str | None = None) -> list[Path]:
    """Folders that no row names, of this suffix or of any."""
    recorded = {str(row["id"]) for row in deployment.look.fetch("SELECT id FROM snapshots")}
    return [
        folder
        for folder in deployment.store.iterdir()
        if folder.stem not in recorded and suffix in (None, folder.suffix)
    ]


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
