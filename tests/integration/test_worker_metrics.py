"""Counts survive the workers that made them; files and gauges of those that are gone do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

from prometheus_client import CollectorRegistry, generate_latest

from app.api.schemas import RejectedEvent
from app.metrics_server import _AllWorkers
from app.serving.click_rules import Rule
from app.storage.events import Outcome
from models.types import EventType

_TOP = Path(__file__).resolve().parents[2]
_WORKER = """
import sys
from app import metrics
metrics.WORKERS.set(1)
metrics.DECIDED_ADS.inc(3)
metrics.observe("/v1/score", "POST", 200, 0.004)
metrics.DATABASE_REACHABLE.set(1)
print("counted", flush=True)
sys.stdin.read()
"""


def _worker(folder: Path) -> subprocess.Popen[bytes]:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(_TOP)}
    process = subprocess.Popen(  # noqa: S603  # ours
        [sys.executable, "-c", _WORKER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"counted\n"
    return process


def _end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    if kill:
        process.kill()
    process.communicate()


def _scraped(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_counts_survive_deaths_and_files_do_not_pile_up(tmp_path: Path) -> None:
    """Five workers that end or are killed, one that runs: the sum of six, the files of two."""
    registry = CollectorRegistry()
    registry.register(_AllWorkers(tmp_path))
    for number in range(5):
        _end(_worker(tmp_path), kill=number % 2 == 0)
        assert _scraped(registry)["adscent_decided_ads_total"] == 3.0 * (number + 1)
    running = _worker(tmp_path)
    try:
        for _ in range(2):
            found = _scraped(registry)
            assert found["adscent_decided_ads_total"] == 18.0
            assert found['adscent_request_seconds_count{route="/v1/score"}'] == 6.0
            assert found['adscent_request_seconds_bucket{le="0.005",route="/v1/score"}'] == 6.0
            assert found['adscent_request_seconds_bucket{le="0.003",route="/v1/score"}'] == 0.0
            assert found["adscent_workers"] == 1.0
            assert found[f'adscent_worker_resident_bytes{{pid="{running.pid}"}}'] > 1e6
        of_gone = [file.name for file in tmp_path.iterdir() if f"_{running.pid}." not in file.name]
        assert sorted(of_gone) == ["counter_ended.db", "histogram_ended.db"]
    finally:
        _end(running, kill=False)


def test_gauges_of_the_dead_disappear(tmp_path: Path) -> None:
    """A worker that is gone is neither counted nor said to reach the database."""
    registry = CollectorRegistry()
    registry.register(_AllWorkers(tmp_path))
    _end(_worker(tmp_path), kill=True)
    found = _scraped(registry)
    assert "adscent_workers" not in found
    assert "adscent_database_reachable" not in found


def test_counts_of_events_are_there_before_the_first(tmp_path: Path) -> None:
    """A worker that has seen no event shows every series at zero, none twice: alerts need them."""
    registry = CollectorRegistry()
    registry.register(_AllWorkers(tmp_path))
    running = _worker(tmp_path)
    try:
        found = _scraped(registry)
    finally:
        _end(running, kill=False)
    expected = {
        f'adscent_events_total{{outcome="{outcome}",type="{kind}"}}'
        for kind in get_args(EventType)
        for outcome in get_args(Outcome)
    } | {'adscent_events_total{outcome="rejected",type="unknown"}'}
    expected |= {f'adscent_events_quarantined_total{{rule="{rule}"}}' for rule in get_args(Rule)}
    reasons = set(get_args(get_type_hints(RejectedEvent)["reason"])) - {"too_old"}  # an outcome
    expected |= {f'adscent_tokens_refused_total{{reason="{reason}"}}' for reason in reasons}
    families = ("adscent_events_", "adscent_tokens_")
    shown = {
        name: value for name, value in found.items() if name.startswith(families) and "{" in name
    }
    assert shown == dict.fromkeys(expected, 0.0)
    assert not [name for name in found if "_created" in name]
