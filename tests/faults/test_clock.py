"""Clocks that are set back: the workers' and the jobs', and the database's."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.accounts import count
from tests.faults.deployment import Deployment, deployed
from tests.faults.processes import wait_for
from tests.faults.report import Seen

_BACK_S = 3600
_SOURCE = Path(__file__).with_name("clock.c")


@dataclass(frozen=True)
class Clock:
    """A clock for processes that load `library` first."""

    library: Path
    offset: Path

    def set_by(self, seconds: int) -> None:
        """Set the clock ahead of, or back behind, that of the machine."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture
def clock() -> Iterator[Clock]:
    """A clock of the test's own, compiled from C. Skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a clock that can be set needs a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="adscent-clock-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    found = Clock(folder / "clock.so", folder / "offset")
    found.offset.write_bytes(bytes(8))
    define = f'-DOFFSET_FILE="{found.offset}"'
    options = ["-shared", "-fPIC", "-O2", "-o", str(found.library), define]
    subprocess.run([compiler, *options, str(_SOURCE)], check=True)  # noqa: S603  # a compiler
    yield found
    shutil.rmtree(folder)


def test_clock_of_serve_and_jobs_set_back(home: Path, clock: Clock, seen: Seen) -> None:
    """The hosts of serve and jobs go back an hour: serving and training go on at once."""
    settings = {"LD_PRELOAD": str(clock.library)}
    with deployed(home, settings) as deployment:
        _set_back(deployment, clock, seen)
        assert "clock_set_back" in deployment.jobs.words()


def test_clock_of_the_database_set_back(home: Path, clock: Clock, seen: Seen) -> None:
    """PostgreSQL's host goes back an hour: training goes on by horizons of its new time."""
    with deployed(home) as deployment, _with_a_clock(deployment, clock):
        _set_back(deployment, clock, seen)


def _set_back(deployment: Deployment, clock: Clock, seen: Seen) -> None:
    with deployment.visited():
        deployment.wait_until_trained()
        since = time.monotonic()
        clock.set_by(-_BACK_S)
        runs = deployment.look.value(_RUNS)
        wait_for(lambda: deployment.look.value(_RUNS) > runs + 1, "two training runs")
        seen.recovered(training=time.monotonic() - since)
        time.sleep(2)
    rejected = dict(deployment.ledger.rejected)
    seen.note(set_back_s=_BACK_S, rejected=rejected)
    seen.serving(deployment.ledger, since)
    seen.accounts(count(deployment))
    assert rejected.keys() <= {"expired"}  # tokens of what is the future now
    assert not deployment.ledger.failed_since(since)


_RUNS = "SELECT count(*) FROM retrain_runs WHERE state = 'accepted'"


@contextmanager
def _with_a_clock(deployment: Deployment, clock: Clock) -> Iterator[None]:
    """The database started with the clock. It passes no environment on: the loader's list does."""
    etc = deployment.home / "etc"
    deployment.database.stop()
    commands = (
        f"cp -a /etc {etc}",
        f"echo {clock.library} > {etc}/ld.so.preload",
        f"mount --bind {etc} /etc",
    )
    with deployment.database_within(*commands):
        yield
