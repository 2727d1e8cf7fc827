"""The files that commands leave: found writable before the work, written at its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from jobs.output import ReportUnwritable, check_writable, write_page, write_report

FULL = Path("/dev/full")


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
