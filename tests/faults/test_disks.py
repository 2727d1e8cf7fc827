"""Disks that are full: that of the snapshots, and that of PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.accounts import count
from tests.faults.deployment import Deployment, deployed
from tests.faults.namespaces import filled, mounted
from tests.faults.processes import wait_for
from tests.faults.report import Seen

_STORE_MB = 48
_ROOM_MB = 96
_FULL_S = 15.0
_FAILED = "SELECT count(*) FROM retrain_runs WHERE state = 'failed' AND reasons::text LIKE $1"


def test_full_snapshot_store(home: Path, seen: Seen) -> None:
    """No room for a snapshot: runs fail and leave nothing behind, and go on once there is room."""
    store = home / "small"
    store.mkdir()
    with mounted(f"mount -t tmpfs -o size={_STORE_MB}m none {store}") as space:
        settings = {"ADSCENT_SNAPSHOTS": str(store)}
        with deployed(home, settings, space.prefix) as deployment:
            deployment.store_seen = space.path(store)
            _fill_store(deployment, seen)


def _fill_store(deployment: Deployment, seen: Seen) -> None:
    look, store = deployment.look, deployment.store
    with deployment.visited():
        deployment.wait_until_trained()
        since = time.monotonic()
        with filled(store / "filler"):
            wait_for(lambda: look.value(_FAILED, "%No space left%") >= 2, "two failed runs")
            deployment.jobs.stop()
            left = [folder.name for folder in store.iterdir() if folder.suffix == ".partial"]
            assert deployment.readiness()["status"] == "ready"
        freed = time.monotonic()
        deployment.jobs.start()
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - freed)
    seen.note(failed_runs=look.value(_FAILED, "%No space left%"), left_behind=len(left))
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert left == [], "an attempt that failed gives its room back"
    assert not deployment.ledger.failed_since(since)


def test_full_database(home: Path, seen: Seen) -> None:
    """No room in PostgreSQL for 15 s: events are refused, decisions go on, then all recovers."""
    with deployed(home) as deployment, _on_a_small_disk(deployment) as disk:
        with deployment.visited():
            deployment.wait_until_trained()
            since = time.monotonic()
            with filled(disk / "filler") as size:
                told = _bulk_until_refused(deployment)
                time.sleep(_FULL_S)
            freed = time.monotonic()
            wait_for(
                lambda: any(at > freed for at in deployment.ledger.acknowledged_at[-50:]),
                "an acknowledged event",
            )
            seen.recovered(events=deployment.ledger.stored_again_s(freed))
            deployment.wait_until_trained()
            seen.recovered(training=time.monotonic() - freed)
            wait_for(lambda: deployment.readiness().get("status") == "ready", "readiness")
        seen.note(filled_mb=size >> 20, refusals=dict(deployment.ledger.refusals), first=told)
        seen.serving(deployment.ledger, since)
        seen.accounts(count(deployment))
        assert deployment.ledger.refusals["503"] > 0
        assert not deployment.ledger.failed_since(since)


def _bulk_until_refused(deployment: Deployment) -> str:
    """Make the database use up what was still free inside of its own files."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if deployment.ledger.refusals["503"]:
            return "503"
        time.sleep(0.2)
    raise AssertionError("the database never ran out of room")


@contextmanager
def _on_a_small_disk(deployment: Deployment) -> Iterator[Path]:
    """The database's folder on a disk with little room; started from there."""
    data, aside = deployment.data, deployment.home / "disk"
    aside.mkdir()
    deployment.database.stop()
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) >> 20
    commands = (
        f"mount -t tmpfs -o size={size + _ROOM_MB}m none {aside}",
        f"cp -a {data} {aside}/",
        f"mount --bind {aside}/data {data}",
    )
    with deployment.database_within(*commands) as space:
        yield space.path(aside)
