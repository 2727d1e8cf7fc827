"""`adscent test`: the whole test suite, real PostgreSQL included."""

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
    if not (_REPOSITORY / "tests").is_dir():
        raise TestsMissing("the tests are in the repository, not in the package: clone it")
    if importlib.util.find_spec("pytest") is None:
        raise TestsMissing(
            "pytest is not installed: `./adscent test` installs it, or"
            " `pip install --requirement requirements-dev.txt`"
        )
    command = [sys.executable, "-m", "pytest", *(arguments or ("-n", "2"))]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ADSCENT_")}
    return subprocess.run(command, cwd=_REPOSITORY, env=clean, check=False).returncode  # noqa: S603  # our own interpreter
