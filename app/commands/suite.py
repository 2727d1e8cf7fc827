"""`adscent test`: the whole test suite, real PostgreSQL included; and the fault tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from app.commands.errors import TestsMissing

_REPOSITORY = Path(__file__).resolve().parents[2]


def run(arguments: Sequence[str]) -> int:
    """Run pytest in the repository with two workers; returns its exit code.

    `arguments` go to pytest. Raises `TestsMissing` where only the program is installed.
    """
    return _pytest(*(arguments or ("-n", "2")))


def run_faults(arguments: Sequence[str], *, is_long: bool, report: Path | None) -> int:
    """Run the fault tests, two at a time unless told otherwise; returns pytest's exit code.

    `is_long`: stops last a minute; `report`: where what was seen is written. Raises `TestsMissing`.
    """
    options = ["--long"] if is_long else []
    if report is not None:
        options += ["--fault-report", str(report.resolve())]
    # A file's tests share a deployment, so they stay together.
    spread = arguments or ("-n", "2", "--dist", "loadfile")
    return _pytest("tests/faults", *options, *spread)


def _pytest(*arguments: str) -> int:
    if not (_REPOSITORY / "tests").is_dir():
        raise TestsMissing("the tests are in the repository, not in the package: clone it")
    if importlib.util.find_spec("pytest") is None:
        raise TestsMissing(
            "pytest is not installed: `./adscent test` installs it, or"
            " `pip install --requirement requirements-dev.txt`"
        )
    command = [sys.executable, "-m", "pytest", *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ADSCENT_")}
    return subprocess.run(command, cwd=_REPOSITORY, env=clean, check=False).returncode  # noqa: S603  # our own interpreter
