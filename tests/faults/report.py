"""What the fault tests saw, as JSON (`schemas/faults.schema.json` describes it) and as a table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from jobs.bench.machine import Machine, describe
from jobs.output import write_report
from tests.faults.accounts import Accounts
from tests.faults.traffic import Ledger

FORMAT = 1


class Fault(msgspec.Struct, kw_only=True):
    """One fault. `about`: the test's sentence; `seconds`: how long the test took.

    `accounts`: counts of events after it, over the life of its deployment; `serving`: decisions
    answered and failed from the fault on, by how they failed, and the longest time in seconds
    without an answer; `recovered_s`: seconds by what had recovered; `notes`: other figures.
    """

    about: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""
    seconds: float = 0.0
    accounts: dict[str, int] = {}
    serving: dict[str, Any] = {}
    recovered_s: dict[str, float] = {}
    notes: dict[str, Any] = {}


class Report(msgspec.Struct, kw_only=True):
    """All faults by the name of their test."""

    kind: Literal["faults"] = "faults"
    format: int = FORMAT
    machine: Machine
    long: bool
    faults: dict[str, Fault]


class Seen:
    """Notes of one test."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def accounts(self, found: Accounts) -> None:
        """The counts after the fault."""
        self._record("accounts", asdict(found))

    def serving(self, ledger: Ledger, since: float) -> None:
        """What became of the decisions since a moment."""
        told = {
            "answered": ledger.answered_since(since),
            "failed": dict(ledger.failed_since(since)),
            "longest_gap_s": round(ledger.longest_gap_s(since), 2),
        }
        self._record("serving", told)

    def recovered(self, **seconds: float) -> None:
        """After how many seconds what had recovered."""
        self._record("recovered_s", {name: round(value, 2) for name, value in seconds.items()})

    def note(self, **figures: object) -> None:
        """Other figures."""
        self._record("notes", figures)


class Writer:
    """Gathers the notes of all tests, prints the table and writes the report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config, self._machine = config, describe()
        self._faults: dict[str, Fault] = {}
        self._about: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test: its notes are there when the call has ended."""
        if report.when != "call" and report.passed:
            return
        notes: dict[str, Any] = {}
        for name, value in report.user_properties:
            notes[name] = notes.get(name, {}) | value if isinstance(value, Mapping) else value
        about = notes.pop("about", report.nodeid)
        self._faults[_name(report.nodeid)] = Fault(
            about=about,
            outcome=report.outcome,
            reason=_reason(report),
            seconds=round(report.duration, 1),
            **notes,
        )

    def pytest_sessionfinish(self) -> None:
        """Write the report where one was asked for."""
        path: Path | None = self._config.getoption("--fault-report")
        faults = dict(sorted(self._faults.items()))
        is_long = bool(self._config.getoption("--long"))
        write_report(path, Report(machine=self._machine, long=is_long, faults=faults))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print what was seen as the table of docs/reliability.md has it."""
        for line in table(self._faults):
            terminalreporter.write_line(line)


def table(faults: Mapping[str, Fault]) -> list[str]:
    """Rows of a Markdown table, one a fault, as docs/reliability.md has them."""
    rows = [
        "| fault | what is done, what holds | decisions | events | goes on after |",
        "|---|---|---|---|---|",
    ]
    for name, fault in sorted(faults.items()):
        test, _, case = name.removesuffix("]").partition("[")
        cells = (f"`{test}` {case}".strip(), fault.about, _decisions(fault), _events(fault))
        rows.append("| " + " | ".join((*cells, _recovered(fault))) + " |")
    return rows


def _reason(report: pytest.TestReport) -> str:
    """Why a test was skipped, or the first line of how it failed."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return "" if crash is None else str(crash.message).splitlines()[0]


def _name(nodeid: str) -> str:
    return nodeid.rpartition("::")[2].removeprefix("test_")


def _events(fault: Fault) -> str:
    found = fault.accounts
    if not found:
        return fault.outcome + (f": {fault.reason}" if fault.reason else "")
    wrong = found["lost"] + found["doubled"] + found["strange"]
    return (
        f"{found['acknowledged']:,} acknowledged, {wrong} lost or doubled;"
        f" {found['trained']:,} of {found['impressions']:,} trained"
    )


def _decisions(fault: Fault) -> str:
    if not fault.serving:
        return ""
    failed: Counter[str] = Counter(fault.serving["failed"])
    hows = ", ".join(f"{count} {how}" for how, count in failed.items())
    total = fault.serving["answered"]
    return f"{total:,} answered, {failed.total()} failed" + (f" ({hows})" if hows else "")


def _recovered(fault: Fault) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in fault.recovered_s.items())


def main() -> None:
    """Print the table of a report: `python -m tests.faults.report FILE`."""
    report = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report)
    print("\n".join(table(report.faults)))


if __name__ == "__main__":
    main()
