"""`adscent doctor`: what is wrong with a deployment, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from app.commands.status import is_late, jobs_state
from app.database_url import DatabaseMissing, database_url
from app.settings import Settings
from app.storage import keys, lag, migrate, snapshots
from app.storage.engine import CHANNEL, Database, notify
from app.storage.errors import StorageError
from app.storage.overview import database_clock, overview
from app.storage.snapshot_store import open_store
from models.errors import ModelError
from models.features import load_schema
from models.schema import Schema

_LEAST_VERSION = 14
_LEAST_FREE = 1_000_000_000
_LARGEST_DRIFT_S = 1.0
_HEARD_S = 2.0
_SILENT_S = 5.0

Result = Literal["ok", "warning", "fault"]


class Finding(msgspec.Struct, frozen=True):
    """What one check saw; a `fault` keeps something from working, a `warning` may."""

    check: str
    result: Result
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every check, in the order in which their faults are best mended."""
    return asyncio.run(_examined(settings))


async def _examined(settings: Settings) -> list[Finding]:
    schema, found = _features(settings)
    findings = [found, *_threads(), *_store(settings), *_ports(settings)]
    try:
        url = database_url(settings)
    except DatabaseMissing as error:
        remedy = "Start `adscent db`, or set DATABASE_URL."
        return [*findings, Finding("database", "fault", str(error), remedy)]
    database = Database(url, pool=2)
    try:
        return [*findings, *[one async for one in _of_database(database, schema, settings)]]
    finally:
        await database.close()


async def _of_database(
    database: Database, schema: Schema | None, settings: Settings
) -> AsyncIterator[Finding]:
    reachable = await _guarded("database", lambda: _reached(database))
    yield reachable
    if reachable.result == "fault":
        return
    migrated = await _guarded("migrations", lambda: _migrated(database))
    yield migrated
    if migrated.result == "fault":
        return
    yield await _guarded("clock", lambda: _clock(database))
    yield await _guarded("listen", lambda: _listens(database))
    yield await _guarded("keys", lambda: _keys(database))
    yield await _guarded("snapshot", lambda: _snapshot(database, schema))
    yield await _guarded("workers", lambda: _workers(database))
    yield await _guarded("jobs", lambda: _jobs(database, settings))


async def _guarded(check: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        return await look()
    except StorageError as error:
        remedy = "Start the database, or correct DATABASE_URL."
        if check == "migrations":
            remedy = "Run `adscent db migrate`."
        return Finding(check, "fault", str(error), remedy)


def _features(settings: Settings) -> tuple[Schema | None, Finding]:
    try:
        schema = load_schema(settings.features)
    except (ModelError, OSError) as error:
        remedy = "Correct the file, or name another one with ADSCENT_FEATURES."
        return None, Finding("features", "fault", str(error), remedy)
    return schema, Finding("features", "ok", f"{settings.features}, schema {schema.hash}")


def _threads() -> Iterator[Finding]:
    given = os.environ.get("OMP_NUM_THREADS")
    if given == "1":
        yield Finding("threads", "ok", "OMP_NUM_THREADS is 1")
    else:
        remedy = "Unset it, or set OMP_NUM_THREADS=1: workers take turns on the processors."
        yield Finding("threads", "warning", f"OMP_NUM_THREADS is {given}", remedy)


def _store(settings: Settings) -> Iterator[Finding]:
    """The folder of the snapshots, or of the local copies of those in an object store."""
    folder = settings.snapshot_store
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"adscent")
    except OSError as error:
        remedy = f"Let this user write to {folder}, or set ADSCENT_SNAPSHOTS to another folder."
        yield Finding("snapshot store", "fault", str(error), remedy)
        return
    try:
        open_store(settings).stored()
    except StorageError as error:
        remedy = "Correct ADSCENT_SNAPSHOTS and what its driver needs, such as AWS_ACCESS_KEY_ID."
        yield Finding("snapshot store", "fault", str(error), remedy)
        return
    yield Finding("snapshot store", "ok", f"{settings.snapshot_url or folder} can be read")
    yield from _disk(folder)


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free at {folder}"
    if free >= _LEAST_FREE:
        yield Finding("disk", "ok", detail)
    else:
        remedy = "Make room, keep fewer snapshots (ADSCENT_SNAPSHOTS_KEPT) or fewer days of events."
        yield Finding("disk", "fault", detail, remedy)


def _ports(settings: Settings) -> Iterator[Finding]:
    """Addresses that `serve` and `jobs` will listen on. One in use is most often their own."""
    for name, host, port in (
        ("port", settings.host, settings.port),
        ("metrics port", settings.metrics_host, settings.metrics_port),
        ("jobs' metrics port", settings.metrics_host, settings.jobs_metrics_port),
    ):
        if _is_free(host, port):
            yield Finding(name, "ok", f"{host}:{port} is free")
        else:
            remedy = "Fine if that is Adscent itself; else stop the program, or set another port."
            yield Finding(name, "warning", f"{host}:{port} is in use", remedy)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


async def _reached(database: Database) -> Finding:
    async with database.session() as connection:
        number = int(await connection.fetchval("SHOW server_version_num"))
        name = await connection.fetchval("SHOW server_version")
    if number // 10_000 < _LEAST_VERSION:
        remedy = f"Use PostgreSQL {_LEAST_VERSION} or newer; 18 is what this is tested with."
        return Finding("database", "fault", f"PostgreSQL {name}", remedy)
    return Finding("database", "ok", f"PostgreSQL {name} answers")


async def _migrated(database: Database) -> Finding:
    await migrate.check(database.url)
    return Finding("migrations", "ok", "the tables are those of this version")


async def _clock(database: Database) -> Finding:
    there_s, took_s = await database_clock(database)
    drift_s = abs(time.time() - took_s / 2 - there_s)
    detail = f"{drift_s * 1000:.0f} ms from the database's clock"
    if drift_s <= _LARGEST_DRIFT_S:
        return Finding("clock", "ok", detail)
    remedy = "Let both hosts follow a time server (chrony, systemd-timesyncd)."
    return Finding("clock", "fault", detail, remedy)


async def _listens(database: Database) -> Finding:
    """A pool of transactions between here and the database passes no notification on."""
    heard = asyncio.Event()
    async with database.session() as connection:
        await connection.add_listener(CHANNEL, lambda *_: heard.set())
        async with database.begin() as other:
            await other.execute(notify("doctor"))
        try:
            async with asyncio.timeout(_HEARD_S):
                await heard.wait()
        except TimeoutError:
            remedy = "Connect to PostgreSQL itself, or set PgBouncer to pool_mode = session."
            detail = "NOTIFY does not reach LISTEN: pauses then wait for polls"
            return Finding("listen", "fault", detail, remedy)
    return Finding("listen", "ok", "a notification came back")


async def _keys(database: Database) -> Finding:
    scopes = {scope for key in await keys.live_api_keys(database) for scope in key.scopes}
    missing = sorted({"score", "ingest", "admin"} - scopes)
    if not missing:
        return Finding("keys", "ok", "there is a key for every scope")
    remedy = f"Run `adscent keys create NAME --scope {' --scope '.join(missing)}`."
    return Finding("keys", "warning", f"no live key has {', '.join(missing)}", remedy)


async def _snapshot(database: Database, schema: Schema | None) -> Finding:
    serving = await snapshots.serving(database)
    if serving is None:
        remedy = "Start `adscent jobs`: it makes the first one."
        return Finding("snapshot", "warning", "no snapshot is recorded yet", remedy)
    recorded = (await snapshots.get_snapshot(database, serving.snapshot_id)).manifest
    if schema is not None and schema.hash != recorded.schema_hash:
        detail = f"snapshot {recorded.id} has the schema {recorded.schema_hash}"
        remedy = "Go back to the features that it was trained with, or train a new line."
        return Finding("snapshot", "fault", f"{detail}, the file has {schema.hash}", remedy)
    return Finding("snapshot", "ok", f"{recorded.id} serves, of the same feature schema")


async def _workers(database: Database) -> Finding:
    found = (await overview(database)).workers
    silent = [one for one in found if one.silent_s > _SILENT_S]
    if silent:
        named = ", ".join(f"{one.host} pid {one.pid} ({one.silent_s:.0f} s)" for one in silent)
        remedy = (
            "Mend its way to the database. If the process is dead, changes name it until its time"
            " is over, or until `adscent workers forget ID`."
        )
        return Finding("workers", "warning", f"not heard of lately: {named}", remedy)
    return Finding("workers", "ok", f"{len(found)} report every second")


async def _jobs(database: Database, settings: Settings) -> Finding:
    """Without jobs nothing is trained or counted, and a week later no event can be stored."""
    seen, behind = await overview(database), await lag.lag(database)
    state, start = jobs_state(seen, behind, settings), "Start `adscent jobs`."
    if behind.horizon_s is None and state == "not running":
        return Finding("jobs", "warning", "no jobs process has run here yet", start)
    detail = f"{state}, last horizon {_ago(behind.horizon_s)}"
    if state == "stalled":
        remedy = "Its log says what it waits for (job_failed); restart `adscent jobs`."
        return Finding("jobs", "fault", detail, remedy)
    if state == "not running":
        result: Result = "fault" if is_late(behind, settings) else "warning"
        return Finding("jobs", result, detail, start)
    return Finding("jobs", "ok", detail)


def _ago(age_s: float | None) -> str:
    return "not yet" if age_s is None else f"{age_s:.0f} s ago"
