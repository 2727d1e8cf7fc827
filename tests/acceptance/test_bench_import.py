"""The benchmarks of files and of a backlog end to end at a tiny size: no time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from jobs.bench import backlog, import_files

SCHEMA = Path(__file__).parents[2] / "schemas" / "bench.schema.json"


def test_an_import_is_measured_against_a_plain_copy(tmp_path: Path) -> None:
    """CSV and Parquet have a baseline in the same run; a small file is not judged."""
    sizes = import_files.Sizes(rows=2_000, rounds=1)
    assert import_files.run(tmp_path / "import.json", seed=1, sizes=sizes) == 0
    found = _checked(tmp_path / "import.json")
    assert {"import_csv", "import_parquet", "import_csv_program", "import_csv_database"} < set(
        found
    )
    assert all(one["baseline"] > 0 and one["target"] is None for one in found.values())


def test_a_backlog_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Its report has the rate of reading and the reader's memory."""
    assert backlog.run(tmp_path / "backlog.json", seed=1, rows=3_000) == 0
    found = _checked(tmp_path / "backlog.json")
    assert set(found) == {"read_3000", "processor_3000", "memory_3000", "erasing_3000"}


def _checked(path: Path) -> dict[str, dict[str, float]]:
    report = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(report, json.loads(SCHEMA.read_text(encoding="utf-8")))
    found: dict[str, dict[str, float]] = report["measurements"]
    return found
