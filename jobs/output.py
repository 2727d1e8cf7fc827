"""The files that a command leaves, its report and its page: found writable before the work."""

from __future__ import annotations

import os
from collections.abc import Mapping
from errno import EACCES
from pathlib import Path

import msgspec

from models.errors import InvalidInput

_REMEDY = "Give the path of a file that you may write to, where there is room."


class ReportUnwritable(InvalidInput):
    """A report or page that was asked for and that cannot be written, or would overwrite a file."""


def check_writable(option: str, path: Path | None) -> None:
    """Make the folder of a file that is written at the end, and try to open the file.

    A file that is there keeps its content. `option` names the path in the error. Raises
    `ReportUnwritable`.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _try_open(Path(os.path.realpath(path)))
    except OSError as error:
        raise _unwritable(option, path, error) from error


def _try_open(path: Path) -> None:
    """Open without changing anything; what is not a plain file might block or be consumed."""
    if not path.exists():
        path.open("xb").close()
        path.unlink()
    elif path.is_file() or path.is_dir():
        path.open("ab").close()
    elif not os.access(path, os.W_OK):
        raise PermissionError(EACCES, os.strerror(EACCES))


def check_separate(
    read: Mapping[str, Path], *, report: Path | None, html: Path | None = None
) -> None:
    """Refuse a report or page that is one of the files that are read, or both as one file.

    `read`: what each of those files is, for the error. Links are followed, hard ones too. Raises
    `ReportUnwritable`.
    """
    taken = dict(read)
    for option, path in (("--report", report), ("--html", html)):
        if path is None:
            continue
        for name, other in taken.items():
            if _is_same(path, other):
                limit = f"it is {name}, which would be overwritten"
                raise ReportUnwritable(option, str(path), limit, "Give a path of its own.")
        taken[f"the file of {option}"] = path


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there yet
        return os.path.realpath(path) == os.path.realpath(other)


def write_report(path: Path | None, report: object) -> None:
    """Write `report` as JSON, unless there is no path. Raises `ReportUnwritable`."""
    if path is not None:
        content = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
        _write("--report", path, content)


def write_page(path: Path, page: str) -> None:
    """Write the page. Raises `ReportUnwritable`."""
    _write("--html", path, page.encode())


def _write(option: str, path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(option, path, error) from error


def _unwritable(option: str, path: Path, error: OSError) -> ReportUnwritable:
    return ReportUnwritable(option, str(path), f"it cannot be written ({error.strerror})", _REMEDY)
