"""How far an import came is noted for one file and one database, and survives what tears it."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from jobs.transfer.ledger import Ledger

DAY = date(2026, 1, 2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of events."""
    path = tmp_path / "a" / "log.csv"
    path.parent.mkdir()
    path.write_text("a")
    return path


def test_a_day_is_noted_for_one_database(tmp_path: Path, file: Path) -> None:
    """Another database has nothing of the file, whatever its name is."""
    Ledger.of(tmp_path, "one", file).note(DAY)
    assert Ledger.of(tmp_path, "one", file).days == [DAY]
    assert Ledger.of(tmp_path, "two", file).days == []


def test_a_day_is_noted_for_one_path(tmp_path: Path, file: Path) -> None:
    """A file of the same name, size and time elsewhere is another; a link to it is the same."""
    other = tmp_path / "b" / "log.csv"
    other.parent.mkdir()
    other.write_text("b")
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    os.utime(other, ns=times)
    Ledger.of(tmp_path, "one", file).note(DAY)
    assert Ledger.of(tmp_path, "one", other).days == []
    link = tmp_path / "link.csv"
    link.symlink_to(file)
    assert Ledger.of(tmp_path, "one", link).days == [DAY]


def test_a_changed_file_begins_anew(tmp_path: Path, file: Path) -> None:
    """Days of what it held before may hold more now."""
    Ledger.of(tmp_path, "one", file).note(DAY)
    file.write_text("more")
    assert Ledger.of(tmp_path, "one", file).days == []


@pytest.mark.parametrize("content", [b"", b'{"size":1,"da', b"[]", b"\xff"])
def test_a_torn_ledger_counts_as_none(tmp_path: Path, file: Path, content: bytes) -> None:
    """It says so, and the next day that is noted replaces it."""
    ledger = Ledger.of(tmp_path, "one", file)
    ledger.note(DAY)
    ledger.place.write_bytes(content)
    again = Ledger.of(tmp_path, "one", file)
    assert (again.days, again.torn) == ([], ledger.place)
    again.note(DAY)
    assert Ledger.of(tmp_path, "one", file).torn is None


def test_a_ledger_is_replaced_whole(tmp_path: Path, file: Path) -> None:
    """What cannot be written leaves the last state: a full disk tears nothing."""
    ledger = Ledger.of(tmp_path, "one", file)
    ledger.note(DAY)
    before = ledger.place.stat().st_ino
    ledger.note(date(2026, 1, 3))
    assert ledger.place.stat().st_ino != before
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == [ledger.place.name]
