"""The report of the fault tests fits its schema, and the documentation has a row for each fault."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import jsonschema
import msgspec

from jobs.bench.machine import describe
from tests.faults.report import Fault, Report, table

_ROOT = Path(__file__).parents[2]
_SCHEMA = json.loads((_ROOT / "schemas" / "faults.schema.json").read_text())
_ACCOUNTS = dict.fromkeys(_SCHEMA["$defs"]["accounts"]["required"], 7)
_SERVING = {"answered": 3, "failed": {"503": 1, "ReadError": 2}, "longest_gap_s": 0.5}


def _fault(**given: object) -> Fault:
    return msgspec.convert({"about": "A sentence.", "outcome": "passed"} | given, Fault)


def test_report_fits_its_schema() -> None:
    """A fault with all that is noted, one that was skipped, one that failed at once."""
    faults = {
        "killed_worker": _fault(accounts=_ACCOUNTS, serving=_SERVING, recovered_s={"events": 0.1}),
        "full_database": _fault(outcome="skipped", reason="mounting a small disk needs root"),
        "torn": _fault(outcome="failed", reason="AssertionError"),
    }
    report = Report(machine=describe(), long=False, faults=faults)
    jsonschema.validate(json.loads(msgspec.json.encode(report)), _SCHEMA)


def test_table_tells_losses_and_failures() -> None:
    """What was lost or doubled, and how decisions failed, stands in the row."""
    fault = _fault(accounts=_ACCOUNTS | {"lost": 2}, serving=_SERVING)
    row = table({"killed_worker": fault})[2]
    assert "16 lost or doubled" in row  # 2 lost, 7 doubled, 7 that nobody sent
    assert "3 failed (1 503, 2 ReadError)" in row


def test_every_fault_has_a_row_in_the_documentation() -> None:
    """The table of docs/reliability.md names each fault test, and no other."""
    text = (_ROOT / "docs" / "reliability.md").read_text()
    section = text.partition("## Faults")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)", section, re.MULTILINE))
    assert told == {name.removeprefix("test_") for name in _tests()}


def _tests() -> set[str]:
    trees = [ast.parse(path.read_text()) for path in (_ROOT / "tests/faults").glob("test_*.py")]
    functions = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if node.name.startswith("test_")}
