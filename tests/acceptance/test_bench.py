"""The benchmarks end to end at tiny sizes: that they measure and report, no time asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from jobs.bench import serve, train, vowpal
from jobs.bench.report import measure

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"
TRAIN = train.Sizes(
    ads=100,
    kernel_events=500,
    kernel_rounds=2,
    chunk_events=500,
    chunk_rounds=2,
    shapes=((6, 2, 1), (7, 1, 1)),
)
SERVE = serve.Sizes(ads=150, events=500, bodies=5, rounds=2, seconds=0.2, connections=2)


def _checked(path: Path) -> dict:
    report = json.loads(path.read_text(encoding="utf-8"))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    return report


def test_training_is_measured_from_the_kernel_to_the_recorded_snapshot(tmp_path: Path) -> None:
    """The report fits its schema; the kernel has a target, the chunk its stages."""
    assert train.run(tmp_path / "made" / "train.json", seed=1, sizes=TRAIN) == 0
    report = _checked(tmp_path / "made" / "train.json")
    found = report["measurements"]
    assert report["kind"] == "bench train"
    assert found["kernel_d36"]["target"] == train.KERNEL_TARGET
    assert len(found["chunk"]["rounds"]) == 2
    assert {"chunk_read", "chunk_learn", "chunk_write", "chunk_record"} <= found.keys()
    assert {"first_call_compiling", "first_call_cached"} <= found.keys()
    assert {"kernel_d36_two_threads", "kernel_d28", "two_threads_log_loss"} <= found.keys()
    assert {"kernel_d36_of_memory", "kernel_d36_of_arithmetic"} <= found.keys()
    assert ("vw_pairs" in found) == vowpal.is_installed()


def test_serving_is_measured_through_a_real_server(tmp_path: Path) -> None:
    """The report fits its schema; scores are compared with answering alone, by throughput."""
    assert serve.run(tmp_path / "serve.json", seed=1, sizes=SERVE) == 0
    report = _checked(tmp_path / "serve.json")
    found = report["measurements"]
    assert report["kind"] == "bench serve"
    assert found["score_throughput"]["judged"] == "ratio at least"
    assert found["decisions_p99"]["value"] >= found["decisions_p50"]["value"]


@pytest.mark.parametrize(
    ("judged", "limit", "met"),
    [
        ("value at least", 20.0, True),
        ("value at least", 21.0, False),
        ("value at most", 20.0, True),
        ("value at most", 19.0, False),
        ("ratio at least", 2.0, True),
        ("ratio at least", 2.1, False),
        ("ratio at most", 2.0, True),
        ("ratio at most", 1.9, False),
    ],
)
def test_a_target_is_judged_by_medians(judged: str, limit: float, met: bool) -> None:
    """The median of the rounds, or of their ratios to the baseline's rounds, against the limit."""
    made = measure([20, 10, 90], "s", "", baseline=[10, 5, 30], target=(judged, limit))  # type: ignore[arg-type]
    assert (made.value, made.baseline, made.ratio, made.met) == (20, 10, 2.0, met)


def test_a_measure_without_a_target_is_not_judged() -> None:
    """Neither met nor missed."""
    assert measure([1.0], "s", "").met is None
