"""The embedded PostgreSQL starts, stops and outlives whatever kills one of its sides."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from app.storage.embedded import EmbeddedPostgres
from app.storage.errors import EmbeddedBusy, EmbeddedVersionMismatch

ROOT = Path(__file__).resolve().parents[2]

SUPERVISOR = """
    import sys, time
    from pathlib import Path
    from app.storage.embedded import EmbeddedPostgres
    server = EmbeddedPostgres(Path(sys.argv[1]), durable=False)
    print(server.start(), server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose data is removed at the end, wherever it is kept."""
    yield tmp_path
    shutil.rmtree(EmbeddedPostgres(tmp_path).folder, ignore_errors=True)


def ask(url: str, query: str) -> object:
    """The single value that a query gives."""

    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(run())


def supervise(home: Path) -> tuple[subprocess.Popen[str], str, int]:
    """Another process that runs the database of `home`: the process, the URL, PostgreSQL's pid."""
    process = subprocess.Popen(  # noqa: S603 - a script of ours
        [sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(home)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url, pid = process.stdout.readline().split()
    return process, url, int(pid)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9, and wait for the end."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Whether the database takes a query."""
    try:
        return ask(url, "SELECT 1") == 1
    except (OSError, asyncpg.PostgresError):
        return False


def test_rows_survive_a_stop_and_a_start(home: Path) -> None:
    """What was committed is there after a clean stop and a second start on the same port."""
    with EmbeddedPostgres(home) as server:
        first = server.url
        ask(first, "CREATE TABLE kept AS SELECT 42 AS value")
        assert EmbeddedPostgres.url_of(home) == first
    assert EmbeddedPostgres.url_of(home) is None
    with EmbeddedPostgres(home) as server:
        assert ask(server.url, "SELECT value FROM kept") == 42
        assert ask(server.url, "SHOW fsync") == "on"


def test_password_is_needed_and_private(home: Path) -> None:
    """A wrong password is refused, and only the owner can read the right one."""
    with EmbeddedPostgres(home, durable=False) as server:
        secret = (server.folder / "password").read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            ask(server.url.replace(secret, "wrong"), "SELECT 1")
        for path in (server.folder / "password", home / "postgres" / "running.json"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_second_supervisor_is_refused(home: Path) -> None:
    """While one process runs the database of a home, another cannot."""
    with EmbeddedPostgres(home, durable=False), pytest.raises(EmbeddedBusy):
        EmbeddedPostgres(home, durable=False).start()


def test_killed_supervisor_takes_the_database_with_it(home: Path) -> None:
    """After kill -9 of the supervisor PostgreSQL ends by itself and the next start has the rows."""
    process, url, pid = supervise(home)
    ask(url, "CREATE TABLE kept AS SELECT 42 AS value")
    kill(process)
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    assert EmbeddedPostgres.url_of(home) is None
    with EmbeddedPostgres(home, durable=False) as server:
        assert ask(server.url, "SELECT value FROM kept") == 42


def test_start_right_after_a_kill_waits_for_the_old_one(home: Path) -> None:
    """A start that comes while the orphaned PostgreSQL still shuts down succeeds."""
    process, url, _ = supervise(home)
    ask(url, "CREATE TABLE kept AS SELECT 42 AS value")
    kill(process)
    with EmbeddedPostgres(home, durable=False) as server:
        assert ask(server.url, "SELECT value FROM kept") == 42


def test_killed_database_is_started_again(home: Path) -> None:
    """After kill -9 of PostgreSQL the supervisor starts it again under the same URL."""
    with EmbeddedPostgres(home, durable=False) as server:
        ask(server.url, "CREATE TABLE kept AS SELECT 42 AS value")
        time.sleep(1.0)  # without durability a commit reaches the disk a little later
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        wait_for(lambda: answers(server.url))
        assert ask(server.url, "SELECT value FROM kept") == 42


def test_database_that_cannot_start_for_a_while_is_back(home: Path) -> None:
    """What keeps it from starting again, once it was ready, may go away: it is tried again."""
    with EmbeddedPostgres(home, durable=False) as server:
        needed = server.folder / "data" / "global" / "pg_control"
        aside = needed.rename(needed.with_suffix(".aside"))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        log = server.folder / "server.log"
        wait_for(lambda: log.read_text().count("could not find the database system") >= 2)
        aside.rename(needed)
        wait_for(lambda: answers(server.url))


def test_pid_of_another_process_is_not_trusted(home: Path) -> None:
    """A stale pid file that names a living process of another kind does not stop the start."""
    with EmbeddedPostgres(home, durable=False) as server:
        folder = server.folder
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    stale = "\n".join([str(os.getpid()), *lines[1:]])
    (folder / "data" / "postmaster.pid").write_text(stale)
    with EmbeddedPostgres(home, durable=False) as server:
        assert answers(server.url)


def test_unfinished_data_folder_is_made_anew(home: Path) -> None:
    """Half a data folder, left by a crash of the first start, is thrown away."""
    server = EmbeddedPostgres(home, durable=False)
    (server.folder / "data.new").mkdir(parents=True)
    (server.folder / "data.new" / "PG_VERSION").write_text("18")
    with server:
        assert answers(server.url)


def test_other_major_version_is_refused(home: Path) -> None:
    """A data folder of another major version is left alone, with the remedy in the message."""
    with EmbeddedPostgres(home, durable=False) as server:
        folder = server.folder
    (folder / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedVersionMismatch, match=r"17.*18.*dump"):
        EmbeddedPostgres(home, durable=False).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_works_as_an_ordinary_user() -> None:
    """An ordinary user runs it from the installed programs, with the data in its home."""
    home = Path("/tmp") / f"adscent-ordinary-{os.getpid()}"  # noqa: S108 - below no private folder
    home.mkdir()
    os.chown(home, 65534, 65534)
    script = """
        import os, sys
        from pathlib import Path
        import asyncio, asyncpg
        from app.storage.embedded import EmbeddedPostgres
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        home = Path(sys.argv[1])
        with EmbeddedPostgres(home, durable=False) as server:
            assert server.folder == home / "postgres", server.folder
            async def ask():
                connection = await asyncpg.connect(server.url)
                print(await connection.fetchval("SELECT 42"))
                await connection.close()
            asyncio.run(ask())
    """
    try:
        found = subprocess.run(  # noqa: S603 - a script of ours
            [sys.executable, "-c", textwrap.dedent(script), str(home)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(home)},
            timeout=60,
            check=False,
        )
        assert found.stdout == "42\n", found.stderr
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps the data outside of the home")
def test_a_new_home_at_an_old_path_has_a_new_database(tmp_path: Path) -> None:
    """A home that was deleted and made anew does not meet the database of the old one."""
    home = tmp_path / "home"
    old = EmbeddedPostgres(home)
    try:
        with old:
            pass
        shutil.rmtree(home)
        new = EmbeddedPostgres(home)
        assert new.folder != old.folder
    finally:
        shutil.rmtree(old.folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps the data outside of the home")
def test_a_copied_home_does_not_share_the_database(tmp_path: Path) -> None:
    """A copy gets a folder of its own while the original is there; a moved home keeps its own."""
    home, copy = tmp_path / "home", tmp_path / "copy"
    server = EmbeddedPostgres(home)
    try:
        with server:
            pass
        shutil.copytree(home, copy)
        assert EmbeddedPostgres(copy).folder != server.folder
        shutil.rmtree(home)
        assert EmbeddedPostgres(copy).folder == server.folder
    finally:
        shutil.rmtree(server.folder)
