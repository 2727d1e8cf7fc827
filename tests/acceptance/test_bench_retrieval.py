"""The benchmark of retrieval end to end at tiny sizes, no time asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from jobs.bench import retrieval, retrieval_charts

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"
SIZES = retrieval.Sizes(
    ads=(60, 900),
    times=2,
    events=2_000,
    users=4,
    rounds=2,
    worker_ads=150,
    worker_events=500,
    seconds=0.2,
)


def test_retrieval_is_measured_against_flat_scans_and_drawn(tmp_path: Path) -> None:
    """The report fits its schema, has sizes, shares and a worker; both charts are drawings."""
    file = tmp_path / "retrieval.json"
    assert retrieval.run(file, seed=1, sizes=SIZES) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = report["measurements"]
    assert {"mean_60", "mean_900", "mean_1800", "mean_share_0.01", "mean_wide"} <= found.keys()
    assert found["worker_p99"]["target"] == 10.0
    retrieval_charts.main(file, tmp_path)
    for name in ("retrieval-ads.svg", "retrieval-selectivity.svg"):
        drawing = (tmp_path / name).read_text(encoding="utf-8")
        assert drawing.startswith("<svg ")
        assert drawing.count('class="series"') == 2
