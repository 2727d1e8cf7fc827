"""Which days of a file are in which database, noted so that an import goes on where it was cut."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import msgspec


class _Noted(msgspec.Struct):
    """The content of a ledger's file: the days of one state of the file."""

    size: int
    modified_ns: int
    days: list[date]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The days of one file that one database has.

    `torn`: what was noted at this place before and cannot be read, as after a full disk.
    """

    place: Path
    size: int
    modified_ns: int
    days: list[date] = field(default_factory=list)
    torn: Path | None = None

    @classmethod
    def of(cls, folder: Path, database: str, file: Path) -> Ledger:
        """What is noted of this very file and database; nothing once the file has changed."""
        folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256(f"{database}\0{file.resolve()}".encode(errors="surrogateescape"))
        place, found = folder / f"{key.hexdigest()[:32]}.json", file.stat()
        size, modified_ns = found.st_size, found.st_mtime_ns
        try:
            known = msgspec.json.decode(place.read_bytes(), type=_Noted)
        except FileNotFoundError:
            return cls(place, size, modified_ns)
        except msgspec.MsgspecError:
            return cls(place, size, modified_ns, torn=place)
        is_same = (known.size, known.modified_ns) == (size, modified_ns)
        return cls(place, size, modified_ns, known.days if is_same else [])

    def note(self, day: date) -> None:
        """A day is in the database. Whoever reads finds the ledger before it or after it, whole."""
        self.days.append(day)
        noted = _Noted(self.size, self.modified_ns, self.days)
        partial = self.place.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as target:
            target.write(msgspec.json.encode(noted))
            target.flush()
            os.fsync(target.fileno())
        partial.replace(self.place)
