"""A database restored from a dump into another PostgreSQL."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.storage import binaries
from tests.faults.accounts import count
from tests.faults.database import Look
from tests.faults.deployment import Deployment, deployed, environment_of, remove, url_of
from tests.faults.processes import Part, wait_for
from tests.faults.report import Seen

_ENDED = "SELECT count(*) FROM retrain_runs WHERE state = 'accepted'"


def test_restored_database(home: Path, seen: Seen) -> None:
    """Training refuses the restored cursor, names the remedy, and goes on after it."""
    with deployed(home) as deployment:
        with deployment.visited():
            deployment.wait_until_trained()
            deployment.jobs.stop()
            time.sleep(2)  # events that nobody has trained go into the dump
        deployment.serve.stop()
        with _restored(deployment):
            _go_on(deployment, seen)


def _go_on(deployment: Deployment, seen: Seen) -> None:
    since = time.monotonic()
    deployment.serve.start()
    deployment.jobs.start()
    deployment.wait_until_served()
    with deployment.visited():
        ended = deployment.look.value(_ENDED)
        wait_for(lambda: "adscent db rebase" in deployment.jobs.words(), "the remedy")
        time.sleep(3)  # events that came since the restore
        assert deployment.look.value(_ENDED) == ended
        rebased = time.monotonic()
        environment = deployment.jobs.environment
        command = Part(["db", "rebase"], environment, deployment.home / "rebase.log")
        command.start()
        wait_for(lambda: not command.is_running, "the rebase")
        assert "go on from the restored events" in command.words()
        deployment.wait_until_trained()
        seen.recovered(training=time.monotonic() - rebased)
    seen.note(by_hand="adscent db rebase")
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert not deployment.ledger.failed_since(since)


@contextmanager
def _restored(deployment: Deployment) -> Iterator[None]:
    """The deployment over a new PostgreSQL that has what a dump of the old one had."""
    home = Path(tempfile.mkdtemp(prefix="adscent-faults-"))
    fresh = Part(["db"], environment_of(home, [0, 0, 0]), home / "db.log")
    old, before = deployment.look, deployment.database
    fresh.start()
    try:
        url = url_of(home, fresh)
        _restore(deployment, url, home / "dump")
        deployment.look = Look(deployment.background, url)
        for part in (deployment.serve, deployment.jobs):
            part.environment["DATABASE_URL"] = url
        before.stop()
        yield
    finally:
        deployment.serve.stop()
        deployment.jobs.stop()
        deployment.look.close()
        deployment.look = old
        fresh.stop()
        remove(home)


def _restore(deployment: Deployment, url: str, dump: Path) -> None:
    with_server = url.rpartition("/")[0] + "/postgres"
    _call("pg_dump", "--format=custom", f"--file={dump}", deployment.look.url)
    for statement in ("DROP DATABASE adscent WITH (FORCE)", "CREATE DATABASE adscent"):
        _call("psql", "--quiet", f"--command={statement}", with_server)
    _call("pg_restore", "--exit-on-error", f"--dbname={url}", str(dump))


def _call(program: str, *arguments: str) -> None:
    path = binaries.programs(binaries.account()) / program
    subprocess.run([path, *arguments], check=True)  # noqa: S603  # a program of PostgreSQL
