"""Exact inner-product search over the catalog's ads: the only importer of FAISS.

A row is `[ν_a, w_a, log bid_micros]`, so the query `[ν_u, 1, 1]` finds the ads with the largest
`ν_u · ν_a + w_a + log bid`. Rows are never removed: what must not be found is masked out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from models.errors import SnapshotCorrupt
from models.types import Bools, Bytes, Float32s, Float64s, Int64s, Ragged

# FAISS wraps its constructors at import; its published signatures are those from before.
_FAISS: Any = faiss

_VECTORS = "index.flat.faiss"
_ROWS = ("ad_ids", "features_version")
# FAISS's header of a flat index: kind, d, n, two unused, trained, metric, number of floats.
_HEADER = struct.Struct("<4siq16xx4xQ")
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class AdSet:
    """The ads that a snapshot indexes, n rows in ascending order of id.

    `ad_ids`, `features_version`: int64 [n]; `log_bid`: float32 [n], natural logarithm of
    `bid_micros`, 0 for CPM ads; `features`: encoded ad features, n rows.
    """

    ad_ids: Int64s
    features_version: Int64s
    log_bid: Float32s
    features: Ragged

    def __len__(self) -> int:
        return len(self.ad_ids)


@dataclass(frozen=True, slots=True)
class Reach:
    """The largest magnitudes among an index's rows: ‖ν_a‖, |w_a| and |log bid|; the mean w_a."""

    latent: float
    main: float
    log_bid: float
    typical_main: float


def packed(mask: Bools) -> Bytes:
    """bool [n] as the bitmap that searches take: uint8 [⌈n/8⌉], bit r % 8 of byte r // 8."""
    return np.packbits(mask, bitorder="little")


class AdIndex:
    """A flat FAISS index with the ids of its rows; immutable, safe to search from any thread.

    `ad_ids`: int64 [n], ascending; `features_version`: int64 [n]; `vectors`: float32 [n, D+2],
    read-only, FAISS's own memory (the mapped file after `load`); `log_bid`: float32 [n], a copy of
    the last column; `reach`: the largest magnitudes.
    """

    def __init__(self, flat: Any, ad_ids: Int64s, features_version: Int64s) -> None:
        self.ad_ids, self.features_version, self._flat = ad_ids, features_version, flat
        self.vectors = _view(flat)
        # A row as plain bytes: gathering from a mapped file, which is not aligned, is then as fast.
        self._bytes = self.vectors.view(np.uint8)
        self.log_bid: Float32s = self.vectors[:, -1].copy()
        self.reach = _reach(self.vectors)

    def __len__(self) -> int:
        return len(self.ad_ids)

    @classmethod
    def build(cls, ad_ids: Int64s, features_version: Int64s, vectors: npt.ArrayLike) -> AdIndex:
        """Index n ads. `vectors`: [n, D+2]. Raises `ValueError` unless ids ascend and sizes fit."""
        rows = np.ascontiguousarray(vectors, np.float32)
        if not len(ad_ids) == len(features_version) == len(rows):
            raise ValueError(
                f"{len(ad_ids)} ids, {len(features_version)} versions, {len(rows)} rows"
            )
        if (np.diff(ad_ids) <= 0).any():
            raise ValueError("ad_ids must be strictly ascending: sort the ads by id")
        flat = faiss.IndexFlatIP(rows.shape[1])
        flat.add(rows)
        return cls(flat, _plain(ad_ids), _plain(features_version))

    def save(self, folder: Path) -> None:
        """Write `index.flat.faiss`, `index.ad_ids.npy`, `index.features_version.npy`."""
        faiss.write_index(self._flat, str(folder / _VECTORS))
        for name in _ROWS:
            np.save(folder / f"index.{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> AdIndex:
        """Map the files of `save` into memory. Raises `SnapshotCorrupt`."""
        try:
            _check_size(folder / _VECTORS)
            # The plain IO_FLAG_MMAP is silently ignored for flat indexes.
            flat = faiss.read_index(str(folder / _VECTORS), faiss.IO_FLAG_MMAP_IFC)
            rows = [np.load(folder / f"index.{name}.npy", mmap_mode="r") for name in _ROWS]
        except (RuntimeError, OSError, ValueError) as error:
            raise SnapshotCorrupt(f"the index in {folder.name} cannot be read: {error}") from error
        if {len(row) for row in rows} != {flat.ntotal}:
            raise SnapshotCorrupt(f"the index in {folder.name} has rows without ids")
        return cls(flat, _plain(rows[0]), _plain(rows[1]))

    def take(self, rows: Int64s) -> Float32s:
        """A copy of some rows: float32 [m, D+2], aligned."""
        return self._bytes.take(rows, axis=0).view(np.float32)

    def search(self, query: Float32s, k: int, mask: Bytes | None = None) -> tuple[Float32s, Int64s]:
        """The k largest inner products, descending: values float32 [k'], rows int64 [k'], k' ≤ k.

        `query`: float32 [D+2]; `mask`: bitmap of the rows that may be found (see `packed`).
        """
        wanted = min(k, len(self))
        if wanted <= 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        _stay_on_one_thread()
        values, rows = self._flat.search(query[None, :], wanted, params=_selecting(mask))
        found = int(np.count_nonzero(rows[0] >= 0))  # too few hits are padded with −1 at the end
        return values[0, :found], rows[0, :found]

    def above(self, query: Float32s, limit: float, mask: Bytes | None = None) -> Int64s:
        """Every row whose inner product, as float32, is above `limit`: int64 [m], ascending."""
        if not len(self):
            return np.zeros(0, np.int64)
        _stay_on_one_thread()
        # Rounded down, so that a product equal to the limit's nearest float is not lost.
        radius = float(np.nextafter(np.float32(limit), np.float32(-np.inf)))
        _, _, rows = self._flat.range_search(query[None, :], radius, params=_selecting(mask))
        found: Int64s = np.sort(rows)
        return found


def _selecting(mask: Bytes | None) -> Any:
    """Search parameters; they keep the selector and the selector keeps the bitmap alive."""
    if mask is None:
        return None
    selector = _FAISS.IDSelectorBitmap(np.ascontiguousarray(mask))
    return _FAISS.SearchParameters(sel=selector)


def _check_size(file: Path) -> None:
    """FAISS crashes the process on a truncated mapped file, so its header is read here first."""
    with file.open("rb") as opened:
        header = opened.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ValueError("it is shorter than its header")
    kind, width, rows, floats = _HEADER.unpack(header)
    expected = _HEADER.size + 4 * floats
    if kind != b"IxFI" or floats != width * rows or file.stat().st_size != expected:
        raise ValueError(f"{file.name} is not a whole flat inner-product index")


def _stay_on_one_thread() -> None:
    # FAISS's limit holds for the calling thread only, so it is set where the search happens; a
    # process that set OMP_NUM_THREADS=1 before the import never gets past the comparison.
    if faiss.omp_get_max_threads() != 1:
        faiss.omp_set_num_threads(1)


class _Memory:
    """FAISS's array under NumPy's array protocol: a view of it keeps the index alive."""

    def __init__(self, flat: Any) -> None:
        self.flat = flat
        self.__array_interface__ = {
            "data": (int(flat.get_xb()), True),
            "shape": (flat.ntotal, flat.d),
            "typestr": "<f4",
            "version": 3,
        }


def _view(flat: Any) -> Float32s:
    if not flat.ntotal:
        return np.zeros((0, flat.d), np.float32)
    return np.asarray(_Memory(flat))


def _plain(array: Int64s) -> Int64s:
    # A plain view: look-ups through NumPy's memmap subclass cost several times more.
    return np.asarray(array, np.int64)


def _reach(vectors: Float32s) -> Reach:
    if not len(vectors):
        return Reach(0.0, 0.0, 0.0, 0.0)
    parts = [_magnitudes(block) for block in _blocks(vectors)]
    latent, main, log_bid = np.max(parts, axis=0).tolist()
    return Reach(latent, main, log_bid, float(vectors[:, -2].mean(dtype=np.float64)))


def _magnitudes(block: Float64s) -> tuple[float, float, float]:
    latent = float(np.sqrt(np.einsum("ij,ij->i", block[:, :-2], block[:, :-2]).max()))
    return latent, float(np.abs(block[:, -2]).max()), float(np.abs(block[:, -1]).max())


def _blocks(vectors: Float32s) -> Iterator[Float64s]:
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield vectors[start : start + _ROWS_AT_ONCE].astype(np.float64)
