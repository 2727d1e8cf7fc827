"""Deployments for the fault tests, and the report of what was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.deployment import Deployment, deployed, remove
from tests.faults.report import Seen, Writer


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `adscent test --faults`."""
    parser.addoption("--fault-report", type=Path, help="Write what was seen to this JSON file.")
    parser.addoption("--long", action="store_true", help="Stops of a minute instead of 20 s.")


def pytest_configure(config: pytest.Config) -> None:
    """Collect what the tests record, in the process that hears of all of them."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(config), "faults-report")


class _Kept:
    """The deployment of a module; a new one after a test that failed on it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._deployment: Deployment | None = None

    def taken(self) -> Deployment:
        """A deployment on which no test has failed yet."""
        if self._deployment is None or self._deployment.has_failed:
            self.close()
            home = Path(tempfile.mkdtemp(prefix="adscent-faults-"))
            self._deployment = self._stack.enter_context(deployed(home))
        return self._deployment

    def close(self) -> None:
        """Stop what runs."""
        self._stack.close()
        self._deployment = None


@pytest.fixture(scope="module")
def _kept() -> Iterator[_Kept]:
    kept = _Kept()
    yield kept
    kept.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Tell the fixture whether the test itself failed."""
    outcome: Any = yield
    if outcome.get_result().failed:
        item.stash[_FAILED] = True


_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def deployment(_kept: _Kept, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A running deployment that other tests of the module have left sound."""
    found = _kept.taken()
    yield found
    if request.node.stash.get(_FAILED, False):
        found.has_failed = True
        for part in (found.database, found.serve, found.jobs):
            print(f"--- {part.log.name}\n{part.words()[-4000:]}")


@pytest.fixture
def seen(record_property: Any, request: pytest.FixtureRequest) -> Seen:
    """Where a test notes what it saw, for the report."""
    record_property("about", " ".join(str(request.function.__doc__).split()))
    return Seen(record_property)


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether stops last a minute."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for a deployment of the test's own."""
    found = Path(tempfile.mkdtemp(prefix="adscent-faults-"))
    yield found
    remove(found)
