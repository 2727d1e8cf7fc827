"""Snapshots: a manifest and arrays that can be memory-mapped, in one folder. No pickle.

A folder is written beside its final name, flushed to disk and renamed, so a name that ends in no
suffix is always complete. Every array's size and SHA-256 stand in the manifest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import SnapshotCorrupt
from models.index import AdIndex
from models.interactions import Interactions
from models.offset import Model, State, Table
from models.types import Batch, Ragged

FORMAT = 4
AnyArray = npt.NDArray[Any]
_MANIFEST = "manifest.json"
_ASIDE = ".partial"
_SERVED = ("model.", "index.")
MODEL_FILES = ("model.",)


class Check(msgspec.Struct, frozen=True):
    """One of the gate's checks: what was measured, the limit, and whether it passed."""

    name: str
    value: float | None
    limit: float | None
    passed: bool
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """The gate's answer on one candidate, with every check."""

    result: Literal["accepted", "repaired", "refused"]
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the candidate was refused, a sentence a failed check."""
        return tuple(check.reason for check in self.checks if not check.passed)


class WindowChunk(msgspec.Struct, frozen=True):
    """Sums over one learned chunk, each event scored before it was learned.

    `loss` is the candidate line's, `loss_incumbent` that of the incumbent frozen before the chunk,
    `loss_rate` that of the running click rate; `difference_squares` sums (loss −
    loss_incumbent)² for the paired standard error; `variance` sums p(1 − p).
    """

    events: int
    clicks: float
    loss: float
    loss_incumbent: float
    loss_rate: float
    difference_squares: float
    predicted: float
    predicted_incumbent: float
    variance: float


class File(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of one file of a snapshot."""

    bytes: int
    sha256: str


class VectorHealth(msgspec.Struct, frozen=True):
    """The raw vectors of one feature type against their norm bound.

    `feature`: its full name; `values`: how many vectors; `ratios`: norm over radius, the median,
    90 %, 99 % and largest, None for what is not finite; `above`: vectors longer than their radius;
    `duals`: how many have a positive dual; `largest_dual`: the largest of those.
    """

    feature: str
    values: int
    ratios: tuple[float | None, ...]
    above: int
    duals: int
    largest_dual: float | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a snapshot but its arrays."""

    id: UUID
    parent: UUID | None
    created_ms: int
    schema_hash: str
    bias: float | None
    bias_precision: float | None
    interaction_weight: float
    interaction_precision: float
    seed: int
    user_features: int
    overlap: int
    alone: int
    verdict: Verdict
    metrics: dict[str, float | None]
    window: tuple[WindowChunk, ...] = ()
    vectors: tuple[VectorHealth, ...] = ()
    first_event_ms: int | None = None
    last_event_ms: int | None = None
    format: int = FORMAT
    files: dict[str, File] = {}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A trained model with all that the next training step and the serving need.

    `state`: the trainer's raw parameters; `model`: their published projection; `index`: the
    catalog's ads under `model`; `probes`: the fixed impressions whose scores show drift.
    """

    manifest: Manifest
    state: State
    model: Model
    index: AdIndex
    probes: Batch


@dataclass(frozen=True, slots=True)
class Served:
    """The part of a snapshot that serving maps into memory."""

    manifest: Manifest
    model: Model
    index: AdIndex


def manifest_json(manifest: Manifest) -> bytes:
    """The manifest as it stands in the folder and in the database."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest. Raises `SnapshotCorrupt`."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise SnapshotCorrupt(f"the manifest cannot be read: {error}") from error
    if manifest.format != FORMAT:
        raise SnapshotCorrupt(f"format {manifest.format} is not {FORMAT}, which this version reads")
    return manifest


def write(
    store: Path, snapshot: Snapshot, beside: Callable[[Path], None] | None = None
) -> Manifest:
    """Write `store/<id>` so that it is either complete or absent; returns the sealed manifest.

    `beside` may write files of its own into the folder it is given; they are sealed with the rest.
    """
    folder = store / str(snapshot.manifest.id)
    aside = folder.with_suffix(_ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        sealed = _sealed(aside, snapshot, beside)
    except BaseException:
        # On a full disk, what is left of one attempt would keep the next from succeeding.
        shutil.rmtree(aside, ignore_errors=True)
        raise
    aside.rename(folder)
    _flush_folder(store)
    return sealed


def _sealed(aside: Path, snapshot: Snapshot, beside: Callable[[Path], None] | None) -> Manifest:
    """Write everything into the folder and flush it; its manifest with the checksums."""
    _write_arrays(aside, snapshot)
    snapshot.index.save(aside)
    if beside is not None:
        beside(aside)
    sealed = msgspec.structs.replace(snapshot.manifest, files=_files(aside))
    (aside / _MANIFEST).write_bytes(manifest_json(sealed))
    _flush(aside)
    return sealed


def load(folder: Path, recorded: Manifest | None = None) -> Snapshot:
    """Map a whole snapshot, checking its files as `verify`. Raises `SnapshotCorrupt`."""
    manifest = verify(folder, recorded, (*_SERVED, "state.", "probes."))
    return Snapshot(
        manifest,
        _state(folder, manifest),
        _model(folder, manifest),
        AdIndex.load(folder),
        _batch(folder, "probes"),
    )


def load_served(folder: Path, recorded: Manifest | None = None) -> Served:
    """Map what serving needs, checking those files as `verify`. Raises `SnapshotCorrupt`."""
    manifest = verify(folder, recorded, _SERVED)
    return Served(manifest, _model(folder, manifest), AdIndex.load(folder))


def load_model(folder: Path, recorded: Manifest | None = None) -> Model:
    """Map the published parameters alone, checking those files. Raises `SnapshotCorrupt`."""
    return _model(folder, verify(folder, recorded, MODEL_FILES))


def verify(
    folder: Path, recorded: Manifest | None = None, prefixes: tuple[str, ...] = ("",)
) -> Manifest:
    """Compare the files whose names start with a prefix against the manifest.

    `recorded` is the manifest as it was recorded elsewhere: a folder whose own manifest differs was
    altered, checksums and all. Raises `SnapshotCorrupt` for a missing, truncated or altered file.
    """
    manifest = _manifest(folder)
    if recorded is not None and manifest != recorded:
        raise SnapshotCorrupt(
            f"snapshot {folder.name}: {_MANIFEST} was altered: it is not the recorded one"
        )
    for name, expected in manifest.files.items():
        if name.startswith(prefixes):
            _verify_file(folder, name, expected)
    return manifest


def _manifest(folder: Path) -> Manifest:
    try:
        return parse_manifest((folder / _MANIFEST).read_bytes())
    except OSError as error:
        raise SnapshotCorrupt(f"snapshot {folder.name}: no manifest: {error.strerror}") from error
    except SnapshotCorrupt as error:
        raise SnapshotCorrupt(f"snapshot {folder.name}: {error}") from error


def _write_arrays(folder: Path, snapshot: Snapshot) -> None:
    for side, table in (("user", snapshot.state.user), ("ad", snapshot.state.ad)):
        for item in fields(Table):
            _save(folder, f"state.{side}_{item.name}", getattr(table, item.name))
    for name in _VARIANCES:
        _save(folder, f"state.{name}", getattr(snapshot.state, name))
    _save(folder, "state.interaction_variance", snapshot.state.interactions.variance)
    for name in _MODEL_ARRAYS:
        _save(folder, f"model.{name}", getattr(snapshot.model, name))
    probes = snapshot.probes
    for name in ("time_ms", "ad_id", "label"):
        _save(folder, f"probes.{name}", getattr(probes, name))
    for side, ragged in (("user", probes.user), ("ad", probes.ad)):
        _save(folder, f"probes.{side}_ids", ragged.ids)
        _save(folder, f"probes.{side}_ptr", ragged.ptr)
        _save(folder, f"probes.{side}_features", np.array(ragged.features))


_VARIANCES = ("user_variance", "ad_variance")
_MODEL_ARRAYS = (
    "user_keys",
    "user_latent",
    "user_main",
    "user_feature",
    "ad_keys",
    "ad_latent",
    "ad_main",
    "ad_variance",
    "ad_prior_variance",
)


def _save(folder: Path, name: str, array: AnyArray) -> None:
    np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _read(folder: Path, name: str) -> AnyArray:
    mapped: AnyArray = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return mapped


def _state(folder: Path, manifest: Manifest) -> State:
    tables = [
        Table(**{item.name: _read(folder, f"state.{side}_{item.name}") for item in fields(Table)})
        for side in ("user", "ad")
    ]
    return State(
        schema_hash=manifest.schema_hash,
        user=tables[0],
        ad=tables[1],
        bias=_number(folder, manifest.bias),
        bias_precision=_number(folder, manifest.bias_precision),
        **{name: np.array(_read(folder, f"state.{name}")) for name in _VARIANCES},
        interactions=Interactions(
            np.array(_read(folder, "state.interaction_variance")),
            manifest.interaction_weight,
            manifest.interaction_precision,
        ),
        seed=manifest.seed,
    )


def _number(folder: Path, value: float | None) -> float:
    if value is None:
        raise SnapshotCorrupt(f"snapshot {folder.name}: its bias is not a finite number")
    return value


def _model(folder: Path, manifest: Manifest) -> Model:
    arrays = {name: _read(folder, f"model.{name}") for name in _MODEL_ARRAYS}
    return Model(
        **arrays,
        bias=_number(folder, manifest.bias),
        user_features=manifest.user_features,
        overlap=manifest.overlap,
        alone=manifest.alone,
    )


def _batch(folder: Path, name: str) -> Batch:
    sides = [
        Ragged(
            _read(folder, f"{name}.{side}_ids"),
            _read(folder, f"{name}.{side}_ptr"),
            int(_read(folder, f"{name}.{side}_features")),
        )
        for side in ("user", "ad")
    ]
    return Batch(
        _read(folder, f"{name}.time_ms"),
        _read(folder, f"{name}.ad_id"),
        _read(folder, f"{name}.label"),
        *sides,
    )


def _files(folder: Path) -> dict[str, File]:
    return {
        path.relative_to(folder).as_posix(): File(path.stat().st_size, _digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify_file(folder: Path, name: str, expected: File) -> None:
    path = folder / name
    if not path.is_file():
        raise SnapshotCorrupt(f"snapshot {folder.name}: {name} is missing")
    size = path.stat().st_size
    if size != expected.bytes:
        raise SnapshotCorrupt(
            f"snapshot {folder.name}: {name} has {size} bytes instead of {expected.bytes}"
        )
    if _digest(path) != expected.sha256:
        raise SnapshotCorrupt(f"snapshot {folder.name}: {name} was altered: its SHA-256 differs")


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
    _flush_folder(folder)


def _flush_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
