"""The catalog as a snapshot knew it, in one file of its folder: workers map it and share it.

Reading 300,000 ads from the database takes a worker tens of seconds and hundreds of MB. The image
holds them as the columns that serving needs, in the rows of the snapshot's index, so a worker maps
the file and asks the database only for what has changed since.

The file is a head of fixed size, JSON that names every array's type, shape and place, and the
arrays, each at a multiple of 64 bytes. No pickle.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from app.serving.columns import CODES, INT64, Columns
from app.serving.eligibility import ACTIVE
from app.serving.items import Items
from app.serving.rules import Rules
from app.serving.schedules import timetable
from app.serving.targeting import Place, Targets
from models.errors import SnapshotCorrupt
from models.features import Encoder
from models.snapshot import Manifest, verify
from models.types import CatalogChanges, Placement, Schedule

FILE = "catalog.image"
FORMAT = 2
_HEAD = struct.Struct("<8sQ")
_MAGIC = b"adscent\x01"
_ALIGNED = 64
_ITEMS = ("creatives", "encoded")
_OF_ITEMS = ("base", "starts", "lengths")
_PLAIN = (*INT64, *CODES, "per_click")
_OF_RULES = ("start", "rows", "holders", "range_rows", "minimum", "maximum")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, struct.error, msgspec.MsgspecError)
_AnyArray = npt.NDArray[Any]


class _Array(msgspec.Struct, frozen=True):
    """Where an array lies: `start` counts from the first array on."""

    dtype: str
    shape: tuple[int, ...]
    start: int


class _Set(msgspec.Struct, frozen=True):
    """One set of targeting rules: what it is about, and the texts that it lists, in order."""

    feature: str
    role: int
    turn: int
    terms: list[str]


class _Contents(msgspec.Struct, frozen=True):
    """What the file says of itself. States: of campaigns and advertisers that are not active."""

    format: int
    version: int
    rows: int
    arrays: dict[str, _Array]
    rules: list[_Set]
    campaign_states: dict[int, int]
    advertiser_states: dict[int, int]
    placements: list[Placement]
    schedules: dict[int, Schedule]


@dataclass(frozen=True, slots=True)
class Image:
    """A whole catalog: its version, its ads in columns, and its placements."""

    version: int
    columns: Columns
    placements: tuple[Placement, ...]

    @classmethod
    def of(cls, changes: CatalogChanges, encoder: Encoder) -> Image:
        """A whole catalog, as `changes_since(0)` gives it: the indexed ads first, by their ids."""
        ads = sorted(changes.ads, key=lambda ad: (ad.state == "retired", ad.id))
        columns = Columns.empty().with_states(changes.campaigns, changes.advertisers)
        columns = columns.with_ads(ads, np.arange(len(ads)), encoder)
        return cls(changes.version, columns, changes.placements)

    def write(self, folder: Path) -> None:
        """Write `catalog.image` into a folder."""
        arrays = _arrays(self.columns)
        rules = self.columns.targets.rules()
        for number, of in enumerate(rules.values()):
            arrays |= {f"rules.{number}.{name}": getattr(of, name) for name in _OF_RULES}
        contents = _Contents(
            format=FORMAT,
            version=self.version,
            rows=len(self.columns),
            arrays=_places(arrays),
            rules=[_Set(*place, list(of.terms)) for place, of in rules.items()],
            campaign_states=_inactive(self.columns.campaign_states),
            advertiser_states=_inactive(self.columns.advertiser_states),
            placements=list(self.placements),
            schedules={key: of.schedule for key, of in self.columns.schedules.items()},
        )
        _write(folder / FILE, msgspec.json.encode(contents), arrays, contents.arrays)

    @classmethod
    def read(cls, folder: Path) -> Image:
        """Map the image of a folder, unverified. Raises `SnapshotCorrupt`."""
        try:
            return _read(folder / FILE)
        except _UNREADABLE as error:
            raise SnapshotCorrupt(f"{folder.name}: {FILE} cannot be read: {error}") from error


def mapped(folder: Path, recorded: Manifest) -> Image | None:
    """The image of a recorded snapshot, its bytes verified; None for one that has none.

    Raises `SnapshotCorrupt`.
    """
    if FILE not in recorded.files:
        return None
    verify(folder, recorded, (FILE,))
    return Image.read(folder)


def _arrays(columns: Columns) -> dict[str, _AnyArray]:
    arrays: dict[str, _AnyArray] = {name: getattr(columns, name) for name in _PLAIN}
    for name in _ITEMS:
        items = getattr(columns, name).compacted()
        arrays |= {f"{name}.{part}": getattr(items, part) for part in _OF_ITEMS}
    return arrays


def _inactive(states: Mapping[int, int]) -> dict[int, int]:
    return {key: state for key, state in states.items() if state != ACTIVE}


def _places(arrays: Mapping[str, _AnyArray]) -> dict[str, _Array]:
    places, start = {}, 0
    for name, array in arrays.items():
        places[name] = _Array(array.dtype.str, array.shape, start)
        start = _aligned(start + array.nbytes)
    return places


def _write(
    file: Path, contents: bytes, arrays: Mapping[str, _AnyArray], places: Mapping[str, _Array]
) -> None:
    first = _aligned(_HEAD.size + len(contents))
    with file.open("wb") as opened:
        opened.write(_HEAD.pack(_MAGIC, len(contents)) + contents)
        for name, array in arrays.items():
            opened.seek(first + places[name].start)
            opened.write(np.ascontiguousarray(array).data)
        opened.truncate(max(opened.tell(), first))


def _read(file: Path) -> Image:
    memory = _mapped(file)
    magic, length = _HEAD.unpack_from(memory)
    if magic != _MAGIC:
        raise ValueError("it is not a catalog's image")
    contents = msgspec.json.decode(memory[_HEAD.size : _HEAD.size + length], type=_Contents)
    if contents.format != FORMAT:
        raise ValueError(f"format {contents.format} is not {FORMAT}, which this version reads")
    first = _aligned(_HEAD.size + length)
    arrays = {name: _view(memory, first, array) for name, array in contents.arrays.items()}
    return Image(contents.version, _columns(contents, arrays), tuple(contents.placements))


def _mapped(file: Path) -> memoryview:
    # The map lives as long as an array that looks into it.
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def _view(memory: memoryview, first: int, array: _Array) -> _AnyArray:
    dtype, count = np.dtype(array.dtype), math.prod(array.shape)
    if not count:
        return np.zeros(array.shape, dtype)
    return np.frombuffer(memory, dtype, count, first + array.start).reshape(array.shape)


def _columns(contents: _Contents, arrays: Mapping[str, _AnyArray]) -> Columns:
    plain: dict[str, Any] = {name: arrays[name] for name in _PLAIN}
    items: dict[str, Any] = {name: _items(arrays, name) for name in _ITEMS}
    if {len(column) for column in (*plain.values(), *items.values())} != {contents.rows}:
        raise ValueError("its columns are not of one length")
    rules = {
        Place(of.feature, of.role, of.turn): Rules(
            {text: term for term, text in enumerate(of.terms)},
            *(arrays[f"rules.{number}.{name}"] for name in _OF_RULES),
        )
        for number, of in enumerate(contents.rules)
    }
    return Columns(
        **plain,
        **items,
        targets=Targets.of_rules(contents.rows, rules),
        campaign_states=contents.campaign_states,
        advertiser_states=contents.advertiser_states,
        schedules={key: timetable(of) for key, of in contents.schedules.items()},
    )


def _items(arrays: Mapping[str, _AnyArray], name: str) -> Items:
    base, starts, lengths = (arrays[f"{name}.{part}"] for part in _OF_ITEMS)
    return Items(base, starts, lengths)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
