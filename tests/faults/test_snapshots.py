"""Snapshot folders that nobody recorded, or that are not what was recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest

from app.storage import snapshots
from app.storage.engine import Database
from tests.faults.accounts import count
from tests.faults.deployment import Deployment
from tests.faults.phases import held
from tests.faults.processes import wait_for
from tests.faults.report import Seen
from tests.faults.traffic import BROKEN, NOBODY

Damage = Literal["cut", "changed"]
_FILE = "model.ad_latent.npy"


def test_orphaned_folders(deployment: Deployment, seen: Seen) -> None:
    """Folders of killed runs are swept once they are old; recorded ones and others' stay."""
    with deployment.visited():
        for phase in ("write", "rename"):
            with held(deployment, phase, 30_000):
                deployment.jobs.kill()
            deployment.jobs.start()
        since = time.monotonic()
        orphans = _unrecorded(deployment)
        foreign = deployment.store / "notes"
        foreign.mkdir()
        for folder in (*orphans, foreign):
            os.utime(folder, (0, 0))
        deployment.jobs.stop()
        deployment.jobs.environment["ADSCENT_RETENTION_EVERY_S"] = "1"
        deployment.jobs.start()
        swept = wait_for(lambda: not any(o.exists() for o in orphans), "the sweep")
        del deployment.jobs.environment["ADSCENT_RETENTION_EVERY_S"]
    assert sorted(folder.suffix for folder in orphans) == ["", ".partial"]
    assert foreign.exists()
    foreign.rmdir()
    seen.note(orphans=len(orphans))
    seen.recovered(sweep=swept)
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_torn_snapshot_promoted(deployment: Deployment, seen: Seen, damage: Damage) -> None:
    """The call refuses it; past the call, workers keep what they serve until it is whole again."""
    look = deployment.look
    with deployment.visited():
        _wait_for_snapshots(deployment, 3)
        torn = str(look.value("SELECT parent_id FROM snapshots JOIN serving ON id = snapshot_id"))
        since = time.monotonic()
        with _damaged(deployment.store / torn / _FILE, damage):
            refused = deployment.call("POST", f"/v1/snapshots/{torn}/promote")
            assert refused.status_code == 409
            assert _FILE in refused.text
            _promote_past_the_check(deployment, torn)
            wait_for(lambda: torn in _reasons(deployment), "a worker that says so")
            time.sleep(2)
            assert deployment.readiness()["snapshot_id"] != torn
        mended = time.monotonic()
        wait_for(lambda: deployment.readiness().get("status") == "ready", "the mended one")
        deployment.call("POST", "/v1/snapshots/unpin")
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - mended)
    seen.serving(deployment.ledger, since)
    assert not deployment.ledger.failed_since(since)
    seen.accounts(count(deployment, has_one_line=False))


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_torn_snapshot_at_start(deployment: Deployment, seen: Seen, damage: Damage) -> None:
    """The served snapshot is torn while serve is down: it starts with the newest whole one."""
    with deployment.visited():
        _wait_for_snapshots(deployment, 3)
        deployment.jobs.stop()
        deployment.serve.kill()
        since = time.monotonic()
        torn = str(deployment.look.value("SELECT snapshot_id FROM serving"))
        with _damaged(deployment.store / torn / _FILE, damage):
            deployment.serve.start()
            deployment.wait_until_served()
            seen.recovered(decisions=time.monotonic() - since)
            told = deployment.readiness()
            deployment.jobs.start()
            wait_for(lambda: _FILE in _last_reason(deployment), "a run that says so")
        assert told["status"] == "degraded"
        assert torn in str(told["reasons"])
        assert told["snapshot_id"] != torn
        mended = time.monotonic()
        deployment.wait_until_trained()
        wait_for(lambda: deployment.readiness().get("status") == "ready", "readiness")
        seen.recovered(training=time.monotonic() - mended)
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment, has_one_line=False))


def test_torn_snapshot_while_served(deployment: Deployment, seen: Seen) -> None:
    """Every file of the served model is cut under the workers that map it: they are replaced."""
    with deployment.visited():
        _wait_for_snapshots(deployment, 3)
        deployment.jobs.stop()
        torn = str(deployment.look.value("SELECT snapshot_id FROM serving"))
        wait_for(lambda: deployment.readiness().get("snapshot_id") == torn, "the swap")
        before, since = deployment.workers(), time.monotonic()
        mapped = _mapped(before[0], torn)
        whole = {path: path.read_bytes() for path in mapped}
        for path in mapped:
            os.truncate(path, 0)
        time.sleep(5)
        deployment.wait_until_served()
        replaced = set(before) - set(deployment.workers())
        for path, content in whole.items():
            _replace(path, content)
        mended = time.monotonic()
        deployment.jobs.start()
        deployment.wait_until_trained()
        wait_for(lambda: deployment.readiness().get("status") == "ready", "readiness")
        seen.recovered(training=time.monotonic() - mended)
    seen.note(files_cut=len(mapped), workers_replaced=len(replaced))
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment, has_one_line=False))
    assert mapped
    assert deployment.ledger.failed_since(since).keys() <= BROKEN | NOBODY | {"503"}


def _mapped(pid: int, snapshot_id: str) -> list[Path]:
    """The files of a snapshot that a process has in its memory."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sorted({Path(line.split()[-1]) for line in lines if snapshot_id in line})


def _wait_for_snapshots(deployment: Deployment, number: int) -> None:
    query = "SELECT count(*) FROM snapshots WHERE verdict <> 'refused'"
    wait_for(lambda: deployment.look.value(query) >= number, "snapshots")


def _unrecorded(deployment: Deployment) -> list[Path]:
    recorded = {str(row["id"]) for row in deployment.look.fetch("SELECT id FROM snapshots")}
    return [folder for folder in deployment.store.iterdir() if folder.stem not in recorded]


@contextmanager
def _damaged(path: Path, damage: Damage) -> Iterator[None]:
    """The file cut in half or with one byte changed; whole again at the end.

    A new file each time: what processes have mapped stays as it was.
    """
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[-1] ^= 1
    _replace(path, whole[: len(whole) // 2] if damage == "cut" else bytes(torn))
    try:
        yield
    finally:
        _replace(path, whole)


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{uuid4()}")
    aside.write_bytes(content)
    aside.replace(path)


def _promote_past_the_check(deployment: Deployment, snapshot_id: str) -> None:
    """What the call does after it has verified the folder: it may be torn right after."""

    async def promote() -> None:
        database = Database(deployment.look.url, pool=1)
        await snapshots.promote(
            database, UUID(snapshot_id), "faults", time.time_ns() // 10**6, True
        )
        await database.close()

    deployment.background.run(promote())


def _reasons(deployment: Deployment) -> str:
    return str(deployment.readiness().get("reasons"))


def _last_reason(deployment: Deployment) -> str:
    found: Any = deployment.look.fetch(
        "SELECT reasons FROM retrain_runs WHERE state = 'failed' ORDER BY id DESC LIMIT 1"
    )
    return str(found[0]["reasons"]) if found else ""
