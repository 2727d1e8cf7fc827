"""A snapshot comes back as it was written, or is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from uuid import UUID

import msgspec
import numpy as np
import pytest

from models import snapshot
from models.cycle import genesis_snapshot, learn
from models.errors import SnapshotCorrupt
from models.index import AdSet
from models.offset import Table
from models.schema import Schema
from models.snapshot import Snapshot
from models.trainer import TrainerSettings
from models.types import Batch

Draw = Callable[..., Batch]


@pytest.fixture
def trained(schema: Schema, ads: AdSet, draw: Draw) -> Snapshot:
    """A snapshot after one chunk."""
    first = genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=5)
    settings = TrainerSettings.of(schema)
    ids = (UUID(int=2), UUID(int=3))
    return learn(first, draw(300), ads, schema, settings, snapshot_ids=ids, now_ms=6).candidate


def test_everything_comes_back(tmp_path: Path, trained: Snapshot) -> None:
    """Manifest, raw state, model, index and probes equal what was written."""
    sealed = snapshot.write(tmp_path, trained)
    loaded = snapshot.load(tmp_path / str(sealed.id))
    assert loaded.manifest == sealed
    for side in ("user", "ad"):
        before, after = getattr(trained.state, side), getattr(loaded.state, side)
        for item in fields(Table):
            np.testing.assert_array_equal(getattr(after, item.name), getattr(before, item.name))
    np.testing.assert_array_equal(loaded.model.ad_latent, trained.model.ad_latent)
    np.testing.assert_array_equal(loaded.index.vectors, trained.index.vectors)
    np.testing.assert_array_equal(loaded.probes.user.ids, trained.probes.user.ids)
    assert loaded.state.bias == trained.state.bias


def test_attempt_that_fails_leaves_nothing(tmp_path: Path, trained: Snapshot) -> None:
    """On a full disk what is left of one attempt would keep the next from succeeding."""

    def beside(folder: Path) -> None:
        (folder / "rest").write_bytes(b"0")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        snapshot.write(tmp_path, trained, beside)
    assert list(tmp_path.iterdir()) == []


def test_serving_loads_the_same_model(tmp_path: Path, trained: Snapshot, draw: Draw) -> None:
    """The part that serving maps scores exactly as the whole."""
    sealed = snapshot.write(tmp_path, trained)
    served = snapshot.load_served(tmp_path / str(sealed.id))
    events = draw(50, seed=9)
    np.testing.assert_array_equal(
        served.model.score(events.user, events.ad), trained.model.score(events.user, events.ad)
    )


@pytest.mark.parametrize("name", ["model.ad_latent.npy", "index.flat.faiss", "manifest.json"])
def test_a_truncated_file_is_refused_and_named(
    tmp_path: Path, trained: Snapshot, name: str
) -> None:
    """Cutting any file short is found at load, and the message names the snapshot."""
    folder = tmp_path / str(snapshot.write(tmp_path, trained).id)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SnapshotCorrupt, match=r"manifest|" + name):
        snapshot.load_served(folder)


def test_one_altered_bit_is_refused(tmp_path: Path, trained: Snapshot) -> None:
    """A single flipped bit changes the SHA-256 and is refused by file name."""
    folder = tmp_path / str(snapshot.write(tmp_path, trained).id)
    path = folder / "model.user_latent.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(SnapshotCorrupt, match=r"model\.user_latent\.npy was altered"):
        snapshot.load(folder)


def test_a_missing_file_is_refused(tmp_path: Path, trained: Snapshot) -> None:
    """A file that is gone is named."""
    folder = tmp_path / str(snapshot.write(tmp_path, trained).id)
    (folder / "state.user_keys.npy").unlink()
    with pytest.raises(SnapshotCorrupt, match=r"state\.user_keys\.npy is missing"):
        snapshot.load(folder)


def test_a_half_written_folder_has_no_final_name(tmp_path: Path, trained: Snapshot) -> None:
    """What a crash leaves aside does not hinder the next write of the same snapshot."""
    aside = tmp_path / f"{trained.manifest.id}.partial"
    aside.mkdir()
    (aside / "model.ad_latent.npy").write_bytes(b"half")
    sealed = snapshot.write(tmp_path, trained)
    assert snapshot.verify(tmp_path / str(sealed.id)) == sealed
    assert not aside.exists()


def test_a_rewritten_manifest_is_refused(tmp_path: Path, trained: Snapshot) -> None:
    """Whoever alters the manifest, or a file together with its checksum, meets the record."""
    sealed = snapshot.write(tmp_path, trained)
    folder = tmp_path / str(sealed.id)
    altered = msgspec.structs.replace(sealed, bias=5.0)
    (folder / "manifest.json").write_bytes(snapshot.manifest_json(altered))
    assert snapshot.verify(folder) == altered
    for read in (snapshot.verify, snapshot.load, snapshot.load_served):
        with pytest.raises(SnapshotCorrupt, match="not the recorded one"):
            read(folder, sealed)
