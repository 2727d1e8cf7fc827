"""Exact inner-product search over the catalog's ads: the only importer of FAISS.

A row is `[ν_a, w_a, log bid_micros]`, so the query `[ν_u, 1, 1]` finds the ads with the largest
`ν_u · ν_a + w_a + log bid`. Rows are never removed: what must not be found is masked out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.bounds import Bounds
from models.errors import SnapshotCorrupt
from models.types import Bools, Bytes, Float32s, Float64s, Int64s, Ragged

_VECTORS = "index.flat.faiss"
_ROWS = ("ad_ids", "features_version", "log_bid")
_REACH = "index.reach.npy"
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


_Rows = tuple[Int64s, Int64s, Float32s]


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
    """The vectors of ads and their bounds; immutable, safe to search from any thread.

    `ad_ids`: int64 [n], ascending; `features_version`: int64 [n]; `vectors`: float32 [n, D+2],
    read-only, after `load` the mapped file; `log_bid`: float32 [n], a copy of the last column;
    `reach`: the largest magnitudes; `bounds`: what no row can exceed. FAISS reads the same vectors
    for scans of all of them (`search`, `above`), and is imported by the first one: a process that
    needs none saves 30 MB.
    """

    def __init__(
        self,
        vectors: Float32s,
        rows: _Rows,
        reach: Reach,
        bounds: Bounds,
        flat: Callable[[], Any],
    ) -> None:
        self.ad_ids, self.features_version, self.log_bid = rows
        self.vectors, self.reach, self.bounds = vectors, reach, bounds
        self._make_flat, self._made_flat = flat, None
        # A row as plain bytes: gathering from a mapped file, which is not aligned, is then as fast.
        self._bytes = self.vectors.view(np.uint8)

    def __len__(self) -> int:
        return len(self.ad_ids)

    @classmethod
    def build(
        cls,
        ad_ids: Int64s,
        features_version: Int64s,
        vectors: npt.ArrayLike,
        typical_length: float = 1.0,
    ) -> AdIndex:
        """Index n ads. `vectors`: [n, D+2], finite; `typical_length`: ‖ν_u‖ of a typical user.

        Raises `ValueError` unless ids ascend and sizes fit.
        """
        rows = np.array(vectors, np.float32, order="C")
        rows.flags.writeable = False
        if not len(ad_ids) == len(features_version) == len(rows):
            raise ValueError(
                f"{len(ad_ids)} ids, {len(features_version)} versions, {len(rows)} rows"
            )
        if (np.diff(ad_ids) <= 0).any():
            raise ValueError("ad_ids must be strictly ascending: sort the ads by id")
        sides = (_plain(ad_ids), _plain(features_version), rows[:, -1].copy())
        bounds = Bounds.build(rows, typical_length)
        return cls(rows, sides, _reach(rows), bounds, lambda: _indexed(rows))

    def save(self, folder: Path) -> None:
        """Write `index.flat.faiss`, and `index.<name>.npy` for all that stands beside it."""
        _faiss().write_index(self._flat(), str(folder / _VECTORS))
        np.save(folder / _REACH, np.array(astuple(self.reach)), allow_pickle=False)
        self.bounds.save(folder)
        for name in _ROWS:
            np.save(folder / f"index.{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> AdIndex:
        """Map the files of `save` into memory. Raises `SnapshotCorrupt`."""
        try:
            vectors = _mapped(folder / _VECTORS)
            rows = [np.load(folder / f"index.{name}.npy", mmap_mode="r") for name in _ROWS]
            reach = Reach(*np.load(folder / _REACH).tolist())
        except (RuntimeError, OSError, EOFError, ValueError, TypeError) as error:
            raise SnapshotCorrupt(f"the index in {folder.name} cannot be read: {error}") from error
        bounds = Bounds.load(folder)
        if {len(row) for row in rows} | {len(bounds)} != {len(vectors)}:
            raise SnapshotCorrupt(f"the index in {folder.name} has rows without ids or bounds")
        sides = (_plain(rows[0]), _plain(rows[1]), np.asarray(rows[2], np.float32))
        return cls(vectors, sides, reach, bounds, lambda: _read(folder / _VECTORS))

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
        values, rows = self._flat().search(query[None, :], wanted, params=_selecting(mask))
        found = int(np.count_nonzero(rows[0] >= 0))  # too few hits are padded with −1 at the end
        return values[0, :found], rows[0, :found]

    def above(self, query: Float32s, limit: float, mask: Bytes | None = None) -> Int64s:
        """Every row whose inner product, as float32, is above `limit`: int64 [m], ascending."""
        if not len(self):
            return np.zeros(0, np.int64)
        _stay_on_one_thread()
        # Rounded down, so that a product equal to the limit's nearest float is not lost.
        radius = float(np.nextafter(np.float32(limit), np.float32(-np.inf)))
        _, _, rows = self._flat().range_search(query[None, :], radius, params=_selecting(mask))
        found: Int64s = np.sort(rows)
        return found

    def _flat(self) -> Any:
        if self._made_flat is None:
            self._made_flat = self._make_flat()
        return self._made_flat


def _faiss() -> Any:
    """FAISS. It wraps its constructors at import; its published signatures are from before."""
    import faiss

    return faiss


def _indexed(rows: Float32s) -> Any:
    flat = _faiss().IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return flat


def _read(file: Path) -> Any:
    # The plain IO_FLAG_MMAP is silently ignored for flat indexes.
    return _faiss().read_index(str(file), _faiss().IO_FLAG_MMAP_IFC)


def _selecting(mask: Bytes | None) -> Any:
    """Search parameters; they keep the selector and the selector keeps the bitmap alive."""
    if mask is None:
        return None
    selector = _faiss().IDSelectorBitmap(np.ascontiguousarray(mask))
    return _faiss().SearchParameters(sel=selector)


def _mapped(file: Path) -> Float32s:
    """The rows of FAISS's file, read-only and not aligned. It is checked as FAISS does not: that
    crashes the process on a truncated one."""
    with file.open("rb") as opened:
        header = opened.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ValueError("it is shorter than its header")
    kind, width, rows, floats = _HEADER.unpack(header)
    expected = _HEADER.size + 4 * floats
    if kind != b"IxFI" or floats != width * rows or file.stat().st_size != expected:
        raise ValueError(f"{file.name} is not a whole flat inner-product index")
    if not rows:
        return np.zeros((0, width), np.float32)
    content = np.memmap(file, np.uint8, "r", _HEADER.size, (rows, 4 * width))
    return np.asarray(content).view(np.float32)


def _stay_on_one_thread() -> None:
    # FAISS's limit holds for the calling thread only, so it is set where the search happens; a
    # process that set OMP_NUM_THREADS=1 before the import never gets past the comparison.
    if _faiss().omp_get_max_threads() != 1:
        _faiss().omp_set_num_threads(1)


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
