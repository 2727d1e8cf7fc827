"""The soak and the statistics' benchmark at tiny sizes: they look and report, no time is judged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from jobs.bench import soak, soak_ledger, statistics
from jobs.bench.soak_ledger import Held, Ledger

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"
TINY = soak.Sizes(
    0.08,
    workers=1,
    open=4,
    capacity_s=1.0,
    warm_s=1.0,
    period_s=1.0,
    look_s=0.5,
    retrain_every_s=4.0,
    window_s=1.0,
    ads=150,
)


def _checked(path: Path) -> dict[str, dict[str, object]]:
    report = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    found: dict[str, dict[str, object]] = report["measurements"]
    return found


def test_soak_finds_every_event_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real deployment with visits: nothing lost or doubled, each process looked at."""
    monkeypatch.setattr(soak, "QUICK", TINY)
    assert soak.run(tmp_path / "soak.json", seed=1, quick=True) == 0
    found = _checked(tmp_path / "soak.json")
    places = ("stored_impressions", "stored_clicks", "counted_impressions", "learned_impressions")
    assert [found[name]["ratio"] for name in places] == [1.0] * 4
    names = ("serve", "jobs", "worker_1", "postgresql")
    assert {f"memory_{name}" for name in names} <= found.keys()
    assert found["decision_p99_last_third"]["judged"] == "ratio at most"


def test_the_ledger_tells_lost_from_doubled() -> None:
    """A lost event of one ad is not made up for by one too many of another."""
    ledger = Ledger(Counter({1: 5, 2: 5}), Counter({1: 1}))
    right = {"impression": {1: 5, 2: 5}, "click": {1: 1}}
    wrong = {"impression": {1: 4, 2: 6}, "click": {1: 1}}
    assert soak_ledger.faults(ledger, Held(right, right, 10, 0)) == []
    [line] = soak_ledger.faults(ledger, Held(wrong, right, 10, 0))
    assert line == "impressions in the table: 1 lost, 1 too many, of 2 ads"
    assert len(soak_ledger.faults(ledger, Held(right, wrong, 9, 1))) == 3


def test_statistics_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of new and of known rows beside a grouping that writes nothing, and two reports."""
    monkeypatch.setattr(statistics, "QUICK", statistics.Sizes(150, 1000, 1))
    assert statistics.run(tmp_path / "statistics.json", seed=1, quick=True) == 0
    found = _checked(tmp_path / "statistics.json")
    assert found.keys() == {"new_rows", "known_rows", "report_ads", "report_campaigns"}
