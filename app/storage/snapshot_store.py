"""Where snapshots are: a folder, or any URL that fsspec knows with a verified copy on this host.

What a snapshot must be stands in its manifest as the database recorded it: names, sizes and
SHA-256. Training writes to the local folder, uploads, and reads back what it uploaded; only then is
the snapshot recorded, so nobody looks for one that is half there. A worker copies what serving
needs and checks every file before it takes its name. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import fsspec

from app.settings import Settings
from app.storage.errors import StoreUnavailable
from models import snapshot
from models.errors import SnapshotCorrupt
from models.snapshot import File, Manifest

EVERYTHING = ("",)
_MANIFEST = "manifest.json"
_LOCK = ".lock"
_FOLDERLESS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "adl"}
"""Stores without folders: asked to make one, their drivers may make a bucket."""
_CACHED_S = 3600.0
_USER = re.compile(r"//[^/@\s]*@")


class SnapshotStore(Protocol):
    """What training, workers and retention need of the place where snapshots are."""

    local: Path

    def fetch(self, recorded: Manifest, prefixes: tuple[str, ...] = EVERYTHING) -> Path:
        """The local folder of a recorded snapshot, in which the files that start so are.

        Loading verifies them. Raises `SnapshotCorrupt` and `StoreUnavailable`.
        """

    def publish(self, sealed: Manifest) -> None:
        """Make a snapshot that was written to `local` available to all hosts, verified.

        Raises `SnapshotCorrupt` and `StoreUnavailable`.
        """

    def mend(self, recorded: Manifest) -> None:
        """Forget local copies that are not what was recorded, so that `fetch` copies them anew."""

    def check_there(self, recorded: Manifest) -> None:
        """Raise `SnapshotCorrupt` unless every file is there, whole."""

    def stored(self) -> list[UUID]:
        """The snapshots of which anything is in the shared store; none for a plain folder."""

    def delete(self, snapshot_id: UUID) -> None:
        """Delete a snapshot from the shared store."""

    def evict(self, needed: Collection[UUID]) -> None:
        """Remove local copies that nobody asked for in the last hour, but for the `needed`."""


def open_store(settings: Settings) -> SnapshotStore:
    """The store of the settings. Raises `StoreUnavailable` for a URL without a driver."""
    if settings.snapshot_url is None:
        return FolderStore(settings.snapshot_store)
    return UrlStore(settings.snapshot_store, settings.snapshot_url)


class FolderStore:
    """Snapshots in a folder that every process of the deployment sees."""

    def __init__(self, folder: Path) -> None:
        self.local = folder

    def fetch(self, recorded: Manifest, prefixes: tuple[str, ...] = EVERYTHING) -> Path:  # noqa: ARG002
        """The folder itself."""
        return self.local / str(recorded.id)

    def publish(self, sealed: Manifest) -> None:
        """Nothing to do: writing renamed it into place."""

    def mend(self, recorded: Manifest) -> None:
        """Nothing to do: there is no other copy."""

    def check_there(self, recorded: Manifest) -> None:
        """Read all of it. Raises `SnapshotCorrupt`."""
        snapshot.verify(self.local / str(recorded.id), recorded)

    def stored(self) -> list[UUID]:
        """Nothing but the folder itself."""
        return []

    def delete(self, snapshot_id: UUID) -> None:
        """Nothing to do: the caller looks after the folder."""

    def evict(self, needed: Collection[UUID]) -> None:
        """Nothing to do: these are no copies."""


class UrlStore:
    """Snapshots below a URL, and copies of those in use in a folder of this host.

    Credentials are the driver's business, out of its environment or files: this never sees them.
    """

    def __init__(self, local: Path, url: str) -> None:
        self.local, self._url = local, _USER.sub("//…@", url)
        scheme = url.partition("://")[0]
        self._has_folders = scheme not in _FOLDERLESS
        options: dict[str, Any] = {"auto_mkdir": True} if scheme in ("file", "local") else {}
        try:
            self._files, root = fsspec.core.url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise StoreUnavailable(
                f"there is no driver for {scheme}:// in ADSCENT_SNAPSHOTS ({error}). Install one,"
                " for S3 `pip install s3fs`, or name a folder"
            ) from error
        self._root = str(root).rstrip("/")

    def fetch(self, recorded: Manifest, prefixes: tuple[str, ...] = EVERYTHING) -> Path:
        """Copy what is missing, each file checked before it takes its name."""
        folder = self.local / str(recorded.id)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = {n: file for n, file in recorded.files.items() if n.startswith(prefixes)}
        if _missing(folder, wanted):
            with _alone(folder):  # the workers of one host need one copy
                self._copy(recorded.id, _missing(folder, wanted), folder)
        if not (folder / _MANIFEST).is_file():
            _replace(folder / _MANIFEST, snapshot.manifest_json(recorded))
        os.utime(folder)
        return folder

    def publish(self, sealed: Manifest) -> None:
        """Upload all files, the manifest last, and read every one back."""
        folder = self.local / str(sealed.id)
        names = list(sealed.files)
        with self._translated(f"upload of {sealed.id}"):
            if self._has_folders:
                self._files.makedirs(self._path(sealed.id), exist_ok=True)
            there = [self._path(sealed.id, name) for name in names]
            self._files.put([str(folder / name) for name in names], there)
            self._files.put_file(str(folder / _MANIFEST), self._path(sealed.id, _MANIFEST))
        aside = folder.with_suffix(".partial")
        aside.mkdir(exist_ok=True)
        try:
            self._copy(sealed.id, sealed.files, aside)
        finally:
            shutil.rmtree(aside)

    def mend(self, recorded: Manifest) -> None:
        """Remove local files with another content, and the manifest."""
        folder = self.local / str(recorded.id)
        (folder / _MANIFEST).unlink(missing_ok=True)
        for name, file in recorded.files.items():
            if (folder / name).is_file() and _digest(folder / name) != file.sha256:
                (folder / name).unlink(missing_ok=True)

    def check_there(self, recorded: Manifest) -> None:
        """Compare the sizes in the store, and read the local copy of all of it."""
        self._files.invalidate_cache()
        for name, file in recorded.files.items():
            with self._translated(f"{recorded.id}/{name}"):
                size = self._files.size(self._path(recorded.id, name))
            if size != file.bytes:
                raise SnapshotCorrupt(
                    f"snapshot {recorded.id}: {name} has {size} bytes in the snapshot store instead"
                    f" of {file.bytes}"
                )

        snapshot.verify(self.fetch(recorded), recorded)

    def stored(self) -> list[UUID]:
        """The names below the URL that are ids."""
        self._files.invalidate_cache()
        with self._translated("list"):
            if not self._files.exists(self._root):
                return []
            names = [str(path).rstrip("/") for path in self._files.ls(self._root, detail=False)]
        found = (_uuid(name.rpartition("/")[2]) for name in names)
        return sorted(one for one in found if one is not None)

    def delete(self, snapshot_id: UUID) -> None:
        """Delete everything of one snapshot; one that is gone is no error."""
        with self._translated(f"deletion of {snapshot_id}"):
            if self._files.exists(self._path(snapshot_id)):
                self._files.rm(self._path(snapshot_id), recursive=True)

    def evict(self, needed: Collection[UUID]) -> None:
        """A process that maps a removed file keeps what it maps."""
        before_s = time.time() - _CACHED_S
        for folder in self.local.iterdir() if self.local.exists() else ():
            snapshot_id = _uuid(folder.name)
            is_idle = snapshot_id is not None and snapshot_id not in needed
            if is_idle and folder.stat().st_mtime < before_s:
                shutil.rmtree(folder, ignore_errors=True)  # another worker may be doing the same

    def _copy(self, snapshot_id: UUID, files: Mapping[str, File], folder: Path) -> None:
        """Copy files into a folder, all at once where the driver can, each checked before it takes
        its name."""
        if not files:
            return
        aside = folder / f".{os.getpid()}.{threading.get_ident()}"
        try:
            with self._translated(f"copy of {snapshot_id}"):
                there = [self._path(snapshot_id, name) for name in files]
                self._files.get(there, [str(aside / name) for name in files])
            for name, file in files.items():
                self._check(snapshot_id, name, file, aside / name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).replace(folder / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _check(snapshot_id: UUID, name: str, file: File, copied: Path) -> None:
        if _digest(copied) != file.sha256:
            size = copied.stat().st_size
            raise SnapshotCorrupt(
                f"snapshot {snapshot_id}: {name} in the snapshot store is not what was recorded:"
                f" {size} bytes of {file.bytes}, or altered"
            )

    def _path(self, snapshot_id: UUID, name: str = "") -> str:
        return f"{self._root}/{snapshot_id}" + (f"/{name}" if name else "")

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn whatever a driver raises into errors of ours, without anything secret in them."""
        try:
            yield
        except FileNotFoundError as error:
            raise SnapshotCorrupt(f"{what} is not in the snapshot store") from error
        except Exception as error:
            said = _USER.sub("//…@", f"{type(error).__name__}: {error}")
            raise StoreUnavailable(
                f"the snapshot store {self._url} failed ({what}; {said}). Look at its address,"
                " credentials and rights; it is tried again"
            ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process of this host at a time go on."""
    with (folder / _LOCK).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go of when the file is closed
        yield


def _missing(folder: Path, files: Mapping[str, File]) -> dict[str, File]:
    return {
        name: file
        for name, file in files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != file.bytes
    }


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    aside.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
