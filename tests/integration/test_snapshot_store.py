"""Snapshots behind a URL: uploaded whole or not recorded, copied verified or not served."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
import pytest
import structlog
from moto.server import ThreadedMotoServer
from msgspec import structs
from prometheus_client import CollectorRegistry

from app.ids import uuid7
from app.settings import SettingInvalid, Settings, from_environment
from app.storage import comparisons, job_runs, snapshots
from app.storage.catalog import Catalog
from app.storage.chunks import read_cursor
from app.storage.comparisons import plan_of
from app.storage.engine import Database
from app.storage.errors import StoreUnavailable
from app.storage.snapshot_store import UrlStore, open_store
from app.storage.snapshots import Training
from jobs import retention, retrain
from jobs.context import Context, Measures
from models import snapshot
from models.errors import SnapshotCorrupt
from models.features import load_schema
from models.snapshot import MODEL_FILES, Manifest
from tests.contract.conftest import eventually, fill_catalog, running, write_features
from tests.integration.making import now_ms

pytestmark = pytest.mark.anyio
SECRET = "very-secret-key"  # noqa: S105 - made up

everywhere = pytest.mark.parametrize("url", ["file", "s3"], indirect=True)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A bucket on an S3 server of this machine, spoken to over HTTP."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "adscent")
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3")
    files.mkdir("models")
    yield "s3://models/production"
    patch.undo()
    server.stop()


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of its own in a local folder, or in the bucket."""
    if getattr(request, "param", "file") == "file":
        return f"file://{tmp_path}/shared"
    base: str = request.getfixturevalue("s3_url")
    return f"{base}/{tmp_path.name}"


@pytest.fixture
async def context(database: Database, tmp_path: Path, url: str) -> Context:
    """A deployment whose jobs process has recorded the genesis snapshot."""
    settings = Settings(
        home=tmp_path / "jobs",
        features=write_features(tmp_path),
        snapshots=url,
        database_url=database.url,
        attribution_window_s=0.0,
        catalog_poll_s=0.2,
    )
    made = Context(
        settings=settings,
        database=database,
        schema=load_schema(settings.features),
        store=settings.snapshot_store,
        clock=now_ms,
        log=structlog.get_logger("jobs"),
        measures=Measures(CollectorRegistry()),
    )
    await fill_catalog(Catalog(database))
    await retrain.ensure_genesis(made)
    return made


def worker_settings(context: Context, name: str = "worker") -> Settings:
    """Those of a serving process of another host: it shares nothing but the URL."""
    return replace(context.settings, home=context.settings.home.parent / name)


async def manifest_of(context: Context) -> Manifest:
    """What the database has of the served snapshot."""
    serving = await snapshots.serving(context.database)
    assert serving is not None
    return (await snapshots.get_snapshot(context.database, serving.snapshot_id)).manifest


def remote(context: Context) -> tuple[Any, str]:
    """The file system of the store and the path of its root."""
    assert context.settings.snapshots is not None
    files, root = fsspec.core.url_to_fs(context.settings.snapshots)
    files.invalidate_cache()
    return files, str(root)


@everywhere
async def test_a_worker_elsewhere_serves_what_was_uploaded(context: Context) -> None:
    """It copies what serving needs, and no state of the trainer."""
    made, settings = await manifest_of(context), worker_settings(context)
    async with running(settings) as app:
        state = app.state.services.state
        await eventually(lambda: state.bundle is not None)
        assert state.bundle.snapshot_id == made.id
    copied = {path.name for path in (settings.snapshot_store / str(made.id)).iterdir()}
    assert "catalog.image" in copied
    assert not [name for name in copied if name.startswith("state.")]


@everywhere
async def test_a_trainer_elsewhere_goes_on_from_what_was_uploaded(context: Context) -> None:
    """The whole snapshot is there, byte for byte as it was recorded."""
    store, made = open_store(worker_settings(context)), await manifest_of(context)
    loaded = snapshot.load(store.fetch(made), made)
    assert loaded.manifest == made
    assert snapshot.verify(store.fetch(made), made) == made


@everywhere
async def test_an_altered_file_is_never_taken(context: Context) -> None:
    """Same size, another byte: no copy of it takes its name; the good one is taken later."""
    made, store = await manifest_of(context), open_store(worker_settings(context))
    files, root = remote(context)
    path = f"{root}/{made.id}/model.ad_keys.npy"
    good = files.cat_file(path)
    files.pipe_file(path, good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(SnapshotCorrupt, match="not what was recorded"):
        store.fetch(made, MODEL_FILES)
    assert not (store.local / str(made.id) / "model.ad_keys.npy").exists()
    files.pipe_file(path, good)
    snapshot.load_model(store.fetch(made, MODEL_FILES), made)


@everywhere
async def test_a_half_uploaded_snapshot_is_not_served(context: Context) -> None:
    """The worker waits and says why; it serves once the rest is there."""
    made, settings = await manifest_of(context), worker_settings(context)
    files, root = remote(context)
    path = f"{root}/{made.id}/model.ad_latent.npy"
    whole = files.cat_file(path)
    files.rm_file(path)
    async with running(settings) as app:
        state = app.state.services.state
        await eventually(lambda: state.snapshot_fault is not None)
        assert "not in the snapshot store" in state.snapshot_fault
        assert state.bundle is None
        with pytest.raises(SnapshotCorrupt, match="not in the snapshot store"):
            open_store(settings).check_there(made)
        files.pipe_file(path, whole)
    async with running(settings) as app:
        await eventually(lambda: app.state.services.state.bundle is not None)


@everywhere
async def test_what_was_uploaded_is_read_back(context: Context) -> None:
    """A snapshot that did not arrive as it was sealed is not published, so never recorded."""
    made = await manifest_of(context)
    loaded = snapshot.load(context.store / str(made.id), made)
    sealed = snapshot.write(context.store, replace(loaded, manifest=replace_id(made)))
    (context.store / str(sealed.id) / "probes.label.npy").write_bytes(b"torn")
    with pytest.raises(SnapshotCorrupt, match=r"probes\.label"):
        context.snapshots.publish(sealed)
    assert [path.suffix for path in context.store.iterdir()] == ["", ""]  # nothing half-read stays


def replace_id(manifest: Manifest) -> Manifest:
    """The same manifest of a new snapshot."""
    return structs.replace(manifest, id=uuid7(now_ms()), parent=manifest.id)


async def test_a_damaged_copy_is_made_anew(context: Context) -> None:
    """A byte of the local copy that rotted keeps the worker from serving for one round only."""
    made, settings = await manifest_of(context), worker_settings(context)
    store = open_store(settings)
    file = store.fetch(made) / "model.ad_keys.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SnapshotCorrupt):
        snapshot.load_served(store.fetch(made), made)
    store.mend(made)
    assert snapshot.verify(store.fetch(made), made) == made


async def test_processes_of_a_host_copy_once(context: Context) -> None:
    """The first one copies while the others wait for it."""
    made, settings = await manifest_of(context), worker_settings(context)
    stores = [open_store(settings) for _ in range(4)]
    folders = await asyncio.gather(*(asyncio.to_thread(one.fetch, made) for one in stores))
    assert len(set(folders)) == 1
    assert snapshot.verify(folders[0], made) == made
    left = [path.name for path in folders[0].iterdir() if path.name.startswith(".")]
    assert left == [".lock"]


@everywhere
async def test_retention_deletes_in_the_store_what_nobody_needs(context: Context) -> None:
    """Old ones and orphans go; the newest, the served, the canary and the shadow stay."""
    first = await manifest_of(context)
    ids = [first.id]
    for _ in range(6):
        ids.append(await recorded(context, ids[-1]))
    await snapshots.promote(context.database, ids[0], "ann", now_ms(), pin=True)
    for kind, at, share in (("canary", 1, 0.1), ("shadow", 2, None)):
        plan = plan_of(context.settings, share)
        await comparisons.start(context.database, kind, ids[at], plan, "ann")  # type: ignore[arg-type]
    orphan, young = uuid7(now_ms() - 7_200_000), uuid7(now_ms())
    files, root = remote(context)
    for one in (orphan, young):
        if not root.startswith("models"):
            files.makedirs(f"{root}/{one}")
        files.pipe_file(f"{root}/{one}/manifest.json", b"{}")
    kept = replace(context, settings=replace(context.settings, snapshots_kept=1))
    await retention.keep_snapshots(kept)
    assert set(context.snapshots.stored()) == {*ids[:3], *ids[4:], young}
    assert not (context.store / str(ids[3])).exists()
    await retention.keep_snapshots(kept)
    await comparisons.stop(context.database, "canary", ids[1], "ann")
    await retention.keep_snapshots(kept)
    assert set(context.snapshots.stored()) == {ids[0], ids[2], *ids[4:], young}


async def recorded(context: Context, parent: UUID) -> UUID:
    """Write, publish and record a copy of a snapshot, as a training run does."""
    before = (await snapshots.get_snapshot(context.database, parent)).manifest
    loaded = snapshot.load(context.snapshots.fetch(before), before)
    sealed = snapshot.write(context.store, replace(loaded, manifest=replace_id(before)))
    context.snapshots.publish(sealed)
    run = await job_runs.start_run(context.database, now_ms())
    cursor = await read_cursor(context.database)
    training = Training(run.id, "accepted", [sealed], cursor, cursor, 0)
    await snapshots.record(context.database, training, now_ms())
    return sealed.id


async def test_copies_that_nobody_needs_are_evicted(context: Context) -> None:
    """After an hour, unless they are in use."""
    store, made = open_store(worker_settings(context)), await manifest_of(context)
    other = store.local / str(uuid7(now_ms()))
    other.mkdir(parents=True)
    (store.local / "not-ours").mkdir()
    folder = store.fetch(made)
    store.evict([])
    assert folder.exists()
    for one in (folder, other):
        os.utime(one, (0, 0))
    store.evict([made.id])
    assert sorted(path.name for path in store.local.iterdir()) == sorted([str(made.id), "not-ours"])


@everywhere
async def test_a_store_that_does_not_answer_stops_nothing_and_tells_no_secret(
    context: Context, capfd: pytest.CaptureFixture[str]
) -> None:
    """The worker serves its copy after a restart; errors and logs have no credentials in them."""
    settings = worker_settings(context)
    async with running(settings) as app:
        await eventually(lambda: app.state.services.state.bundle is not None)
    away = replace(settings, snapshots=_away(context))
    async with running(away) as app:
        await eventually(lambda: app.state.services.state.bundle is not None)
    with pytest.raises((StoreUnavailable, SnapshotCorrupt)) as raised:
        open_store(replace(away, home=settings.home / "empty")).fetch(await manifest_of(context))
    written = str(raised.value) + "".join(capfd.readouterr())
    assert SECRET not in written


def _away(context: Context) -> str:
    """A store that is gone: another bucket, a removed folder."""
    assert context.settings.snapshots is not None
    if context.settings.snapshots.startswith("s3:"):
        return "s3://no-such-bucket/production"
    folder = context.settings.home.parent / "shared"
    shutil.rmtree(folder)
    return f"file://{folder}"


async def test_a_store_that_cannot_be_reached_says_so_with_the_remedy(context: Context) -> None:
    """Nobody listens there; what the address would betray is not shown."""
    store = UrlStore(context.settings.home / "empty", "http://127.0.0.1:9/models")
    with pytest.raises(StoreUnavailable, match="Look at its address"):
        store.fetch(await manifest_of(context), MODEL_FILES)


def test_a_url_without_a_driver_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(StoreUnavailable, match=r"no driver for nowhere://"):
        UrlStore(tmp_path, "nowhere://bucket")


@pytest.mark.parametrize(
    "text", ["s3://key:secret@bucket/x", "ftp://u@h/x", "s3://b/x?secret=1", "://b", "s3://"]
)
def test_credentials_have_no_place_in_the_setting(text: str) -> None:
    """Settings are shown; the message does not show this one."""
    with pytest.raises(SettingInvalid, match="ADSCENT_SNAPSHOTS") as raised:
        from_environment({"ADSCENT_SNAPSHOTS": text})
    assert "secret@" not in str(raised.value)
    assert "secret=" not in str(raised.value)


def test_a_folder_or_a_url_is_taken(tmp_path: Path) -> None:
    """Copies of what is behind a URL are below the home."""
    folder = from_environment({"ADSCENT_SNAPSHOTS": str(tmp_path)})
    assert (folder.snapshot_store, folder.snapshot_url) == (tmp_path, None)
    given = {"ADSCENT_SNAPSHOTS": "s3://b/p", "ADSCENT_HOME": str(tmp_path)}
    behind = from_environment(given)
    assert (behind.snapshot_store, behind.snapshot_url) == (tmp_path / "snapshots", "s3://b/p")
