"""The demo as a person starts it: one short run, one that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are read from /proc"
)
ROOT = Path(__file__).parents[2]
SECONDS = 45
LIMIT_S = 300


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the tests' own; the database's folder, for root elsewhere, is removed too."""
    made = tmp_path_factory.mktemp("home")
    yield made
    location = made / "demo" / "postgres" / "location"
    if location.exists():
        shutil.rmtree(location.read_text(), ignore_errors=True)


def _start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADSCENT_", "DATABASE_URL"))}
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        [sys.executable, "-m", "app.cli.main", "demo", *arguments],
        cwd=home,
        env=kept | {"ADSCENT_HOME": str(home), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def shown(home: Path) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and report of a short run."""
    report = home / "reports" / "demo.json"
    given = ("--exit-after", str(SECONDS), "--seed", "2", "--report", str(report))
    process = _start(home, *given)
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    return process.returncode, output, json.loads(report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def report(shown: tuple[int, str, dict[str, Any]]) -> dict[str, Any]:
    """The report of the short run."""
    return shown[2]


def test_every_promise_is_kept(shown: tuple[int, str, dict[str, Any]]) -> None:
    """All acts are played, nothing breaks, and the exit code says so."""
    code, output, report = shown
    broken = [one for one in report["promises"] if one["kept"] is not True]
    assert broken == [], output
    assert code == 0, output


def test_the_report_follows_its_schema(report: dict[str, Any]) -> None:
    """The JSON report is valid by the published schema."""
    schema = json.loads((ROOT / "schemas" / "demo.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)


def test_no_request_fails(report: dict[str, Any]) -> None:
    """Through pauses, swaps, a refusal and a rollback every request has a good answer."""
    assert report["requests"] > 500
    assert report["failed_requests"] == 0


def test_states_of_ads_hold_once_confirmed(report: dict[str, Any]) -> None:
    """No decision that was sent after a confirmation shows the paused or the retired ad."""
    assert report["paused_ad_served_after_ack"] == 0
    assert report["retired_ad_served_after_ack"] == 0


def test_models_take_over_or_are_refused(report: dict[str, Any]) -> None:
    """Good snapshots serve inside every radius, the absurd one is refused."""
    assert report["snapshots_promoted"] >= 1
    assert report["snapshots_refused"] >= 1
    assert report["max_norm_ratio"] <= 1.00001


def test_served_ads_are_between_random_choice_and_oracle(report: dict[str, Any]) -> None:
    """By the market's true probabilities what is served earns more than chance, less than all."""
    low, high = report["revenue_per_thousand_random"], report["revenue_per_thousand_oracle"]
    assert low < report["revenue_per_thousand"] <= high
    assert report["ctr"] > report["ctr_random"]


def test_the_story_is_told_in_order(shown: tuple[int, str, dict[str, Any]]) -> None:
    """Pause, return, retirement, absurd training and rollback follow each other."""
    acts = ("pauses it", "It comes back", "is retired", "step size of 1,000,000", "Rollback:")
    places = [shown[1].find(act) for act in acts]
    assert -1 not in places
    assert places == sorted(places)


def test_it_says_how_to_join_in(shown: tuple[int, str, dict[str, Any]]) -> None:
    """Where API and dashboard are, with a call to paste, and how to keep it for longer."""
    for told in ("The API is at http://127.0.0.1:", "curl -s http", "--exit-after 900"):
        assert told in shown[1]


def test_a_killed_demo_leaves_nothing_behind(home: Path) -> None:
    """After kill -9 the database, the server, its workers and the jobs end by themselves."""
    process = _start(home, "--exit-after", "60")
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "First answer" in line:
                break
        started = _descendants(process.pid)
        assert len(started) >= 6, "PostgreSQL, serve, two workers, jobs, visitors"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    _eventually(lambda: not any(_runs(pid) for pid in started))


def _descendants(pid: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listed.read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
