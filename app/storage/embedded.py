"""A small supervisor over the PostgreSQL programs of a wheel, for when `DATABASE_URL` is not set.

One process at a time runs the database of a home (an flock says which). It survives kill -9 of
either side: when the supervisor dies the kernel tells PostgreSQL to stop, when PostgreSQL dies the
supervisor starts it again on the same port, and a stale pid file is trusted only after a look at
which processes really sit in the data folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from app.storage import binaries
from app.storage.errors import EmbeddedBusy, EmbeddedFailed, EmbeddedVersionMismatch
from app.storage.processes import (
    STOP_S,
    end,
    free_port,
    locked,
    send,
    sitting_in,
    wait_until,
    write_private,
)

_PR_SET_PDEATHSIG = 1
_START_S = 60.0
_LOCK_S = 5.0
_YOUNG_S = 2.0
_PAUSE_S = 10.0
"""The longest pause between two attempts to start PostgreSQL again."""

# Small memory, one machine, no replicas. Durability stays as PostgreSQL ships it.
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0700",
    "shared_buffers": "96MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "64MB",
    "max_connections": "80",
    "max_wal_size": "1GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "enable_partitionwise_join": "on",
    "idle_in_transaction_session_timeout": "300s",
}

# Autovacuum would hold the horizon of running transactions back at moments that no test expects.
_TEST_OPTIONS = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")


class _Running(msgspec.Struct, frozen=True):
    """What other processes read to find the database."""

    url: str
    supervisor: int


class EmbeddedPostgres:
    """The embedded PostgreSQL of one home; use it as a context manager or call `stop`.

    `home`: the server's home; programs and data go to `home/postgres`, or, for root, to a folder
    below `/var/lib/adscent` that an unprivileged user can reach. `durable=False` turns fsync and
    autovacuum off: for tests only, a power cut loses the database. `prepare` is called with the URL
    at every start, before other processes can find the database.
    """

    def __init__(
        self,
        home: Path,
        *,
        durable: bool = True,
        prepare: Callable[[str], None] | None = None,
    ) -> None:
        self._prepare = prepare
        self._home = home.resolve() / "postgres"
        self._durable = durable
        self._user = binaries.account()
        self.folder = self._recorded() or self._new_folder()
        self._data = self.folder / "data"
        self._lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._stopping = threading.Event()
        self._was_ready = False
        self._port = 0

    def start(self) -> str:
        """Start the database, making it first if need be, and return its URL.

        Raises `EmbeddedBusy` when another process runs it, `EmbeddedVersionMismatch` for a data
        folder of another major version, `EmbeddedFailed` with PostgreSQL's own words otherwise.
        """
        self._take_lock()
        try:
            self.folder = self._recorded() or self.folder
            self._data = self.folder / "data"
            self._programs = binaries.programs(self._user)
            self._create_folders()
            self._initialise()
            self._clear_remains()
            self._port = self._choose_port()
            self._launch()
            if self._prepare is not None:
                self._prepare(self.url)
            return self._announce()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the database cleanly: clients are cut off, what they committed is kept."""
        self._stopping.set()
        (self._home / "running.json").unlink(missing_ok=True)
        if self._process is not None:
            end(self._process)
        if self._keeper is not None:
            self._keeper.join()
            self._keeper = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The URL of the running database, password included."""
        password = (self.folder / "password").read_text()
        return f"postgresql://adscent:{password}@127.0.0.1:{self._port}/adscent"

    @property
    def pid(self) -> int | None:
        """The process id of PostgreSQL's main process, None when it does not run."""
        return None if self._process is None else self._process.pid

    @classmethod
    def url_of(cls, home: Path) -> str | None:
        """The URL of the database that some process runs for `home`, None when none does."""
        folder = home.resolve() / "postgres"
        try:
            with (folder / "lock").open("rb") as lock:
                if locked(lock, fcntl.LOCK_SH):
                    return None
            return msgspec.json.decode((folder / "running.json").read_bytes(), type=_Running).url
        except FileNotFoundError:
            return None

    def _recorded(self) -> Path | None:
        """The folder of this home's earlier runs."""
        if not self._user.changes:
            return self._home
        recorded = self._home / "location"
        folder = Path(recorded.read_text()) if recorded.exists() else None
        return folder if folder is not None and self._is_ours(folder) else None

    def _new_folder(self) -> Path:
        # Never a name made from the home's: a new home where an old one was has its own database.
        return binaries.SHARED / secrets.token_hex(8)

    def _is_ours(self, folder: Path) -> bool:
        """False in a copy of a home whose original is still there: it would share one database."""
        try:
            home = Path((folder / "home").read_text())
        except FileNotFoundError:
            return False
        return home == self._home or not (home / "location").exists()

    def _take_lock(self) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self._home / "lock").open("ab")
        # Another process that only looks whether the lock is taken holds it for a moment.
        if not wait_until(lambda: locked(lock, fcntl.LOCK_EX), _LOCK_S):
            lock.close()
            raise EmbeddedBusy(
                f"the database of {self._home.parent} is run by another process already. Use it:"
                " `adscent serve`, `adscent jobs` and the other commands find it by themselves;"
                " or stop that process first, or set ADSCENT_HOME to another folder"
            )
        self._lock = lock
        (self._home / "running.json").unlink(missing_ok=True)

    def _create_folders(self) -> None:
        if self._user.changes:
            binaries.SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "sockets"):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._user.own(folder)
        write_private(self._home / "location", str(self.folder))
        write_private(self.folder / "home", str(self._home))

    def _initialise(self) -> None:
        """Make the data folder aside and rename it: half of one is never opened."""
        if self._data.exists():
            return self._check_version()
        aside = self.folder / "data.new"
        shutil.rmtree(aside, ignore_errors=True)
        password = self.folder / "password"
        write_private(password, secrets.token_urlsafe(24))
        self._user.own(password)
        self._call("initdb", *self._initdb_options(aside, password))
        # CREATE DATABASE wants to be outside of a transaction: one statement, single-user mode.
        create = b"CREATE DATABASE adscent;\n"
        self._call("postgres", "--single", "-D", str(aside), "postgres", given=create)
        aside.rename(self._data)
        return None

    def _initdb_options(self, data: Path, password: Path) -> list[str]:
        options = [f"--pgdata={data}", f"--pwfile={password}", "--username=adscent"]
        options += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"]
        return options if self._durable else [*options, "--no-sync"]

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != binaries.MAJOR:
            raise EmbeddedVersionMismatch(
                f"{self._data} was made by PostgreSQL {found}, the programs are"
                f" {binaries.MAJOR}; dump it with the old version and restore, or move it away"
            )

    def _clear_remains(self) -> None:
        """After a kill -9: end what still sits in the data folder, then drop the stale pid files.

        PostgreSQL itself would take any process that has the old pid by now for a server.
        """
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            for pid in sitting_in(self._data):
                send(pid, number)
            if wait_until(lambda: not sitting_in(self._data), STOP_S):
                break
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        for path in (self.folder / "sockets").iterdir():
            path.unlink(missing_ok=True)

    def _choose_port(self) -> int:
        """The port of the last run when it is free, so that clients find the database again."""
        recorded = self.folder / "port"
        wanted = int(recorded.read_text()) if recorded.exists() else 0
        port = free_port(wanted) or free_port(0)
        recorded.write_text(str(port))
        return port

    def _launch(self) -> None:
        """Start the keeper and wait until PostgreSQL takes connections."""
        self._stopping.clear()
        self._was_ready = False
        started = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(started,), daemon=True)
        self._keeper.start()
        started.wait()
        deadline = time.monotonic() + _START_S
        while not self._answers():
            if not self._keeper.is_alive() or time.monotonic() > deadline:
                raise EmbeddedFailed(f"PostgreSQL did not start: {self._last_words()}")
            time.sleep(0.02)
        self._was_ready = True

    def _keep(self, started: threading.Event) -> None:
        """Run PostgreSQL and run it again when it dies; give up when the first one dies young.

        A later one that dies young, on a full disk for instance, is started again after a pause:
        whatever is in its way may go away without anybody looking here.

        The kernel sends the death signal when the *thread* that forked ends, so this thread forks
        and stays until PostgreSQL has ended.
        """
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            born = time.monotonic()
            try:
                self._process = self._spawn()
            finally:
                started.set()
            if self._stopping.is_set():  # stop() came between the check and the fork
                self._process.send_signal(signal.SIGINT)
            self._process.wait()
            died_young = time.monotonic() - born < _YOUNG_S
            if died_young and not self._was_ready:
                return
            pause_s = min(2 * pause_s + 0.5, _PAUSE_S) if died_young else 0.0
            if not self._stopping.is_set():
                self._clear_remains()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - a program of ours with arguments of ours
                [str(self._programs / "postgres"), "-D", str(self._data), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor
                preexec_fn=_death_signal(os.getpid()),
                **self._user.run_as(),
            )

    def _options(self) -> list[str]:
        own = {"port": str(self._port), "unix_socket_directories": self._sockets()}
        if not self._durable:
            own |= dict.fromkeys(_TEST_OPTIONS, "off")
        return [f"--{name}={value}" for name, value in (_OPTIONS | own).items()]

    def _sockets(self) -> str:
        """The socket folder; none when its path is longer than a socket's address takes."""
        folder = str(self.folder / "sockets")
        return folder if len(folder) < 80 else ""

    def _answers(self) -> bool:
        return self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self._port)) == 0

    def _announce(self) -> str:
        running = _Running(self.url, os.getpid())
        write_private(self._home / "running.json", msgspec.json.encode(running).decode())
        return running.url

    def _run(self, program: str, *arguments: str, given: bytes = b"") -> int:
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.run(  # noqa: S603 - a program of ours with arguments of ours
                [str(self._programs / program), *arguments],
                input=given,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_environment(),
                check=False,
                **self._user.run_as(),
            ).returncode

    def _call(self, program: str, *arguments: str, given: bytes = b"") -> None:
        if self._run(program, *arguments, given=given) != 0:
            raise EmbeddedFailed(f"{program} failed: {self._last_words()}")

    def _last_words(self) -> str:
        lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-5:]) + f" (all of it: {self.folder / 'server.log'})"


def _environment() -> dict[str, str]:
    return {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", "/usr/bin:/bin")}


def _death_signal(parent: int) -> Callable[[], None] | None:
    """What the child runs after the change of user, which would undo it, and before PostgreSQL."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
