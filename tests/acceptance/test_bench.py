"""The benchmarks end to end at tiny sizes: that they measure and report, no time asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from jobs.bench import pause, serve, swap, targeting, train, vowpal
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
SERVE = serve.Sizes(
    ads=150, events=500, bodies=5, rounds=2, seconds=0.2, connections=2, factors=(0.5, 3.0)
)

PAUSE = pause.Sizes(2_000, 2_000, 20, 2, 40.0, 4, 40, 1.2, 0.5)
SWAP = swap.Sizes(
    ads=150,
    events=500,
    changes=5,
    rounds=1,
    steady_s=0.3,
    swaps=4,
    every_s=0.4,
    bodies=5,
    starts=1,
    around=2,
    memory_s=0.5,
)


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
    assert {"overload_0.5x_answered", "overload_3x_answered"} <= found.keys()
    assert found["overload_3x_answered"]["ratio"] <= 1.05
    assert found["batch_pairs"]["ratio"] > 0
    assert found["layer_score_all"]["value"] < found["layer_score_application"]["value"]


def test_pauses_are_measured_and_hold(tmp_path: Path) -> None:
    """The report fits its schema; every phase had pauses, and the decisions were looked at."""
    assert pause.run(tmp_path / "pause.json", seed=1, sizes=PAUSE) == 0
    report = _checked(tmp_path / "pause.json")
    found = report["measurements"]
    assert report["kind"] == "bench pause"
    assert {f"{phase}_p99" for phase in pause.ABOUT} <= found.keys()
    assert found["steady_p99"]["target"] == pause.P99_TARGET[1]
    assert found["decisions"]["value"] > 0


def test_swaps_are_measured_and_every_answer_is_checked(tmp_path: Path) -> None:
    """The report fits its schema; the swaps came, memory and starts were looked at."""
    assert swap.run(tmp_path / "swap.json", seed=1, sizes=SWAP) == 0
    report = _checked(tmp_path / "swap.json")
    found = report["measurements"]
    assert report["kind"] == "bench swap"
    assert found["swap_p99"]["target"] == swap.P99_TARGET[1]
    assert len(found["swap_seconds"]["rounds"]) == SWAP.rounds * SWAP.swaps
    assert found["swap_answers"]["value"] >= SWAP.rate * SWAP.swaps * SWAP.every_s * 0.9
    assert found["start"]["baseline"] > 0
    assert len(found["worker_private"]["rounds"]) == 2


def test_targeting_is_measured_cold_warm_and_changed(tmp_path: Path) -> None:
    """The report fits its schema; both percentiles of a warm mask have the target."""
    sizes = targeting.Sizes(ads=500, requests=20, rounds=2, changed=5, changes=3)
    assert targeting.run(tmp_path / "targeting.json", seed=1, sizes=sizes) == 0
    report = _checked(tmp_path / "targeting.json")
    found = report["measurements"]
    assert report["kind"] == "bench targeting"
    assert found["mask_p99"]["target"] == found["mask_p50"]["target"] == targeting.TARGET_US
    assert {"mask_first", "mask_changed_p50", "change", "merge", "move", "compile"} <= found.keys()


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
