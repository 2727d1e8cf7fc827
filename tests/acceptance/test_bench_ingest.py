"""The ingestion benchmark end to end at a tiny size: that it reports, no time asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from jobs.bench import ingest

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"
SIZES = ingest.Sizes(impressions=((500, 600),), connections=2, rounds=1)


def test_ingestion_is_measured_through_a_real_server(tmp_path: Path) -> None:
    """The report fits its schema; requests of 500 have a target and a baseline."""
    assert ingest.run(tmp_path / "ingest.json", seed=1, sizes=SIZES) == 0
    report = json.loads((tmp_path / "ingest.json").read_text(encoding="utf-8"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    found = report["measurements"]
    assert found["batch_500"]["target"] == ingest.INGEST_TARGET[1]
    assert found["batch_500"]["baseline"] > 0
    assert found["batch_500_p99"]["value"] >= found["batch_500_p50"]["value"]
