"""The files that commands leave: found writable before the work, written at its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import main as cli
from jobs.lab.ablation import FEATURES
from jobs.output import (
    ReportUnwritable,
    check_separate,
    check_writable,
    write_page,
    write_report,
)

FULL = Path("/dev/full")
LOG = Path(__file__).parents[1] / "data" / "log.csv"


@pytest.mark.parametrize("name", ["folder", "file/report.json", "x" * 300])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    """A folder, a file below a file, a name that the file system does not take."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ReportUnwritable, match="--report"):
        check_writable("--report", tmp_path / name)


def test_checking_makes_the_folder_and_no_file(tmp_path: Path) -> None:
    """The work may still fail: then no empty report is left behind."""
    check_writable("--report", tmp_path / "new" / "report.json")
    assert list((tmp_path / "new").iterdir()) == []


def test_checking_keeps_an_earlier_report(tmp_path: Path) -> None:
    """A report that is there stays as it is, also behind a link."""
    (tmp_path / "report.json").write_text("earlier")
    (tmp_path / "link.json").symlink_to(tmp_path / "report.json")
    check_writable("--report", tmp_path / "link.json")
    assert (tmp_path / "report.json").read_text() == "earlier"
    assert (tmp_path / "link.json").is_symlink()


def test_a_link_to_nowhere_stays_a_link(tmp_path: Path) -> None:
    """Only the file behind it is tried and taken away again."""
    (tmp_path / "link.json").symlink_to(tmp_path / "report.json")
    check_writable("--report", tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert not (tmp_path / "report.json").exists()


def test_checking_a_pipe_does_not_wait_for_its_reader(tmp_path: Path) -> None:
    """Opening one for writing would block until someone reads it."""
    os.mkfifo(tmp_path / "pipe")
    check_writable("--report", tmp_path / "pipe")


@pytest.mark.skipif(not FULL.exists(), reason="no device that is always full")
def test_a_full_disk_is_named_at_the_end() -> None:
    """What opens well and fails when written to: the error names option, path and cause."""
    check_writable("--report", FULL)
    with pytest.raises(ReportUnwritable, match=r"--report.*/dev/full.*No space left"):
        write_report(FULL, {})
    with pytest.raises(ReportUnwritable, match=r"--html.*/dev/full"):
        write_page(FULL, "<!doctype html>")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["replay", __file__], "--report"),
        (["replay", __file__], "--html"),
        (["lab", "divergence"], "--report"),
        (["lab", "divergence"], "--html"),
        (["lab", "ablation"], "--report"),
        (["bench", "train"], "--report"),
        (["bench", "memory"], "--report"),
        (["bench", "certificate"], "--report"),
        (["bench", "serve"], "--report"),
        (["demo"], "--report"),
    ],
)
def test_every_command_checks_before_its_work(
    command: list[str], option: str, tmp_path: Path
) -> None:
    """Minutes of work are not lost to a path that was wrong from the start."""
    shown = CliRunner().invoke(cli.app, [*command, option, str(tmp_path)])
    assert isinstance(shown.exception, ReportUnwritable)
    assert option in str(shown.exception)


def _links(folder: Path, file: Path) -> tuple[Path, ...]:
    (folder / "soft.csv").symlink_to(file)
    (folder / "hard.csv").hardlink_to(file)
    return file, folder / "soft.csv", folder / "hard.csv", folder / "." / ".." / folder.name / "x"


def test_a_file_that_is_read_is_no_report(tmp_path: Path) -> None:
    """Whatever it is called: by its own name, by a link of either kind, on a way around."""
    file = tmp_path / "x"
    file.touch()
    for report in _links(tmp_path, file):
        with pytest.raises(ReportUnwritable, match=r"--report.*it is the log"):
            check_separate({"the log": file}, report=report)
        with pytest.raises(ReportUnwritable, match=r"--html.*it is the log"):
            check_separate({"the log": file}, report=None, html=report)


def test_report_and_page_are_two_files(tmp_path: Path) -> None:
    """Also where there is no file yet and one name is a link to the other."""
    report, link = tmp_path / "r.json", tmp_path / "r.html"
    link.symlink_to(report)
    for html in (report, link):
        with pytest.raises(ReportUnwritable, match=r"--html.*it is the file of --report"):
            check_separate({}, report=report, html=html)


def test_files_of_their_own_are_taken(tmp_path: Path) -> None:
    """A report of an earlier run may be there; a link to elsewhere is no other file."""
    (tmp_path / "log.csv").touch()
    (tmp_path / "r.json").touch()
    (tmp_path / "r.html").symlink_to(tmp_path / "page.html")
    read = {"the log": tmp_path / "log.csv", "the features file": tmp_path / "absent.toml"}
    check_separate(read, report=tmp_path / "r.json", html=tmp_path / "r.html")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["replay", "LOG", "--features", "FEATURES"], "--report"),
        (["replay", "LOG", "--features", "FEATURES"], "--html"),
        (["lab", "ablation", "LOG", "--features", "FEATURES"], "--report"),
    ],
)
@pytest.mark.parametrize("name", ["LOG", "FEATURES"])
def test_commands_keep_what_they_read(
    command: list[str], option: str, name: str, tmp_path: Path
) -> None:
    """A report never takes the place of the log or of the features file."""
    files = {"LOG": tmp_path / "log.csv", "FEATURES": tmp_path / "features.toml"}
    for kept, source in (("LOG", LOG), ("FEATURES", LOG.with_name("features.toml"))):
        files[kept].write_bytes(source.read_bytes())
    before, words = files[name].read_bytes(), [str(files.get(word, word)) for word in command]
    shown = CliRunner().invoke(cli.app, [*words, option, str(files[name])])
    assert isinstance(shown.exception, ReportUnwritable)
    assert files[name].read_bytes() == before


@pytest.mark.parametrize("command", [["replay", str(LOG)], ["lab", "divergence", "--quick"]])
def test_commands_keep_report_and_page_apart(command: list[str], tmp_path: Path) -> None:
    """The page, written last, would take the report's place."""
    path = str(tmp_path / "r")
    shown = CliRunner().invoke(cli.app, [*command, "--report", path, "--html", path])
    assert isinstance(shown.exception, ReportUnwritable)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["ablation", "--seeds", "1", "--events", "1000"],
        ["late-clicks", "--seeds", "1", "--events", "1000"],
        ["divergence", "--seeds", "1", "--quick"],
    ],
)
def test_labs_keep_the_schema_of_their_markets(command: list[str], tmp_path: Path) -> None:
    """The market's own features file is read too."""
    (tmp_path / "link.json").symlink_to(FEATURES)
    before = FEATURES.read_bytes()
    words = ["lab", *command, "--report", str(tmp_path / "link.json")]
    try:
        assert isinstance(CliRunner().invoke(cli.app, words).exception, ReportUnwritable)
    finally:
        FEATURES.write_bytes(before)  # a failure must not cost the repository its file
