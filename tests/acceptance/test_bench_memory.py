"""The benchmarks of memory and of the certificate at tiny sizes: no time and no size asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from jobs.bench import certificate, memory
from jobs.bench.deployment import BenchmarkBroken
from jobs.bench.many_values import Size
from jobs.bench.turnover import Course

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"
COURSE = Course(24, events=200, users=400, ads=50, life_h=10, paused_h=2, ttl_h=4.0)
MEMORY = memory.Sizes(Size(user_values=3000, ad_values=300, events=400, ads=50), COURSE, settled=16)
CERTIFICATE = certificate.Sizes(ads=(60,), events=2000, users=300, rounds=2)


def _checked(path: Path) -> dict:
    report = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    return report


def test_memory_is_measured_in_processes_of_its_own(tmp_path: Path) -> None:
    """The report fits its schema; what arrays take is what is stated; turnover leaves no rows."""
    assert memory.run(tmp_path / "memory.json", sizes=MEMORY) == 0
    found = _checked(tmp_path / "memory.json")["measurements"]
    assert found["state"]["ratio"] == pytest.approx(1)
    assert found["served"]["ratio"] == pytest.approx(1, rel=1e-3)
    assert found["peak"]["value"] >= found["most_private"]["value"]
    assert found["turnover_rows"]["met"]
    assert found["turnover_collected"]["value"] > 0


def test_a_child_that_fails_is_an_error_of_the_benchmark() -> None:
    """Figures of a run that broke are not reported."""
    broken = memory.Sizes(Size(user_values=50, ad_values=5, events=-1, ads=1), COURSE, settled=1)
    with pytest.raises(BenchmarkBroken, match="many_values ended with 1: ValueError"):
        memory.run(None, sizes=broken)


def test_the_certified_range_holds_what_a_search_finds(tmp_path: Path) -> None:
    """The report fits its schema; no user and ad that were found lie outside the range."""
    assert certificate.run(tmp_path / "certificate.json", seed=1, sizes=CERTIFICATE) == 0
    found = _checked(tmp_path / "certificate.json")["measurements"]
    assert {"range_60", "width_60", "range_300_users", "width_300_users"} == found.keys()
    assert 1 <= found["width_60"]["ratio"] < 3
    assert 1 <= found["width_300_users"]["ratio"] < 3
