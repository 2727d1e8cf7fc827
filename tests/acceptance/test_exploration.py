"""The comparison of ways to try new ads, end to end at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from jobs.lab import exploration
from jobs.lab.exploration_report import Sizes

SCHEMA = Path(__file__).parents[2] / "schemas" / "exploration.schema.json"
TINY = Sizes(ads=60, days=2.0, steps=10, requests=25, slots=2, learned=500)


def test_every_policy_is_compared_with_none(tmp_path: Path) -> None:
    """The report fits its schema; without exploration nothing is explored and all is 100 %."""
    assert exploration.run(1, tmp_path / "exploration.json", TINY) == 0
    report = json.loads((tmp_path / "exploration.json").read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    rows = {row["policy"]: row for row in report["rows"]}
    assert set(rows) == {policy.name for policy in exploration.POLICIES}
    assert rows["none"]["explored"] == 0
    assert rows["none"]["value"] == rows["none"]["revenue"] == [1.0, 0.0]
    assert rows["thompson 5 %"]["explored"] > rows["thompson 1 %"]["explored"] > 0


def test_a_run_repeats(tmp_path: Path) -> None:
    """The same seed gives the same figures."""
    reports = []
    for name in ("a.json", "b.json"):
        exploration.run(1, tmp_path / name, TINY)
        reports.append(json.loads((tmp_path / name).read_text(encoding="utf-8"))["rows"])
    assert reports[0] == reports[1]
