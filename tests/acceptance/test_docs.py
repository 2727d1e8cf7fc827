"""The documentation is true: its commands and names exist, its site builds, its tour runs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer.main

from app.cli.main import app
from app.main import create_app
from app.settings import Settings
from app.storage.embedded import EmbeddedPostgres
from app.storage.processes import free_ports

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "clients" / "python" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
_LONGEST_S = 180
_SCRIPT_ONLY = ("lint", "docs")
"""Commands of the script `adscent` itself."""


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Each `adscent …` of a code block or of code within a line, and the page that it is on."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for match in re.finditer(r"(?:^\s*|[`(]|&& )(?:\./)?adscent ([^`\n]*)", text, re.MULTILINE):
            line = re.split(r"\s#|[|&>)<…]|\s·\s", match[1])[0]
            yield page.name, shlex.split(line)


@pytest.mark.parametrize(("page", "words"), sorted({(p, tuple(w)) for p, w in _commands()}))
def test_a_command_of_a_page_is_one_that_there_is(page: str, words: tuple[str, ...]) -> None:
    """The command line takes every command and option that a page names."""
    del page
    command, left = typer.main.get_command(app), [*words]
    if not left or left[0] in (*_SCRIPT_ONLY, "COMMAND"):
        return
    while hasattr(command, "get_command") and left and not left[0].startswith("-"):
        context = command.make_context("adscent", [], resilient_parsing=True)
        found = command.get_command(context, left.pop(0))
        assert found is not None, words
        command = found
    if left and "COMMAND" not in left and any(word.startswith("-") for word in left):
        with suppress(typer.BadParameter):  # a file of the reader's own
            command.make_context("adscent", left)


def test_every_setting_of_a_page_exists() -> None:
    """No page speaks of a setting that is not there."""
    known = {f"ADSCENT_{name.upper()}" for name in Settings.__dataclass_fields__}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"ADSCENT_[A-Z_]+[A-Z]", page.read_text(encoding="utf-8"))
    }
    assert {each for each in named if each[1] not in known} == set()


def test_every_file_of_a_page_exists() -> None:
    """No page leads to a file that is not there."""
    pattern = r"`((?:app|models|jobs|tests|docs|schemas|migrations|clients)/[\w/.-]*\w)`"
    missing = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(pattern, page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists() and not list(ROOT.glob(f"{path}.*"))
    }
    assert missing == set()


def test_the_page_of_calls_lists_every_call() -> None:
    """docs/api.md has the method, path, scope and summary of each operation, and no other."""
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8").count("\n| `") == len(_rows())
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [row for row in _rows() if row not in text] == []


def _rows() -> list[str]:
    """A line of the table for each operation of the API."""
    document = create_app(Settings()).openapi()
    return [
        f"| `{method.upper()} {path}` | {_scope(operation)} | {operation['summary']} |"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _scope(operation: dict[str, str]) -> str:
    found = re.search(r"Needs a key with the scope `(\w+)`", operation.get("description", ""))
    return found[1] if found else "–"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and included files are all there; nothing is fetched from elsewhere."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(  # noqa: S603  # our own interpreter
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fetched = re.compile(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?https?://")
    for page in tmp_path.glob("*.html"):
        assert not fetched.search(page.read_text(encoding="utf-8")), page.name


def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    """Every block of the tour succeeds, in order, and shows what the page says."""
    text = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    ports = dict(zip(("8080", "9090", "9091"), free_ports(3), strict=True))
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    script = script.replace("127.0.0.1:8080", f"127.0.0.1:{ports['8080']}")
    script = script.replace("decision.json", str(tmp_path / "decision.json"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ADSCENT_")},
        "ADSCENT_HOME": str(tmp_path),
        "ADSCENT_PORT": str(ports["8080"]),
        "ADSCENT_METRICS_PORT": str(ports["9090"]),
        "ADSCENT_JOBS_METRICS_PORT": str(ports["9091"]),
    }
    environment.pop("DATABASE_URL", None)
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen(  # noqa: S603  # the page's own commands
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            code = -1  # what it printed until then says where it stands
        finally:
            _end(process.pid)
            shutil.rmtree(EmbeddedPostgres(tmp_path).folder, ignore_errors=True)
    shown = output.read_text(encoding="utf-8")
    assert code == 0, shown[-3000:]
    for expected in ('"certified":true', '"accepted":2', '"duplicate":1', '"reason":"paused"'):
        assert expected in shown
    for expected in ('"house":true', '"state":"refused"', '"is_pinned":true', "location: https://"):
        assert expected in shown


def _end(session: int) -> None:
    """End what the tour started, the database last, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(session, number)
        except ProcessLookupError:
            return
        _await_end(session)


def _await_end(session: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
