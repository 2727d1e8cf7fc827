"""What no ad of an index can exceed, in an order in which few ads have to be looked at.

A query is a user's vector q ∈ R^D and a slope t ∈ [0, 1]; a row `[ν, w, log bid]` answers it with
the product `q·ν + t·w + log bid`. Two bounds on the product, neither of which can lose a row:

- *Along axes.* With the rows' centre c, any m directions R ∈ R^(D×m), the coordinates
  `a = Rᵀ(ν − c)` and what they leave, `e = ν − c − R a`,

      q·ν = q·c + p·a + p·(Rᵀe) + (q − R p)·e ≤ q·c + p·a + ‖p‖ max‖Rᵀe‖ + ‖q − R p‖ ‖e‖

  for p = Rᵀq: an inner product of m + 3 numbers instead of D + 2. R holds the rows' principal axes;
  trained ad vectors have few, so ‖e‖ is small. Nothing here needs R to be orthonormal, so rounding
  it costs no exactness. (The split into leading axes and a residual norm: H. Li et al., FEXIPRO,
  SIGMOD 2017.)
- *By length.* `q·ν ≤ q·c + ‖q‖ ‖ν − c‖`, so the product is at most `q·c` plus
  `f(t, ‖q‖) = max (log bid + t·w + ‖q‖ ‖ν − c‖)` over any set of rows. f is convex, being a maximum
  of linear functions, so between the corners of a grid it is below their bilinear interpolation.
  Rows lie in falling order of this bound for a typical user, and the corners are kept for the rows
  from each block on: a search can stop at the first block that is too low. (Stopping by length: C.
  Teflioudi et al., LEMP, SIGMOD 2015.)
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from models.errors import SnapshotCorrupt
from models.types import Float32s, Float64s, Int64s

AXES = 17
"""How many principal axes are kept, at most: with the three columns beside them a multiple of 4,
for which a matrix product takes a third less time than for one column less."""
BLOCK = 256
"""Rows of one step of the length bound."""
_SLOPES = (0.0, 0.5, 0.75, 0.9, 1.0)
_LENGTHS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Of the grid's corners, in typical users' lengths."""
_ROWS_AT_ONCE = 16_384
_UNIT = 2.0**-24
"""Relative rounding error of one float32 operation."""
_MARGIN = 1e-12
"""Relative error allowed for the float64 arithmetic of a query, which is off by 10⁻¹⁴ at most."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of n rows, in falling order for a typical user; places count in that order.

    `order`: int64 [n], the row at each place; `columns`: float32 [n, m+3] by place, `[a, ‖e‖, w,
    log bid]`; `centre`: float64 [D]; `axes`: float64 [D, m]; `corners`: float64 [slopes, lengths,
    blocks], the length bound of all places from a block's first on; `lengths`: float64, the grid's;
    `largest`: float64 [5], over all rows, of ‖a‖, ‖e‖, |w|, |log bid| and ‖ν − c‖; `leak`: float64
    [1], of ‖Rᵀe‖.
    """

    order: Int64s
    columns: Float32s
    centre: Float64s
    axes: Float64s
    corners: Float64s
    lengths: Float64s
    largest: Float64s
    leak: Float64s

    def __len__(self) -> int:
        return len(self.order)

    @classmethod
    def build(cls, vectors: Float32s, typical_length: float) -> Bounds:
        """Bounds of the rows [ν, w, log bid], float32 [n, D+2], finite.

        `typical_length`: ‖q‖ of a typical user, above 0. It decides how early searches stop, never
        what they find.
        """
        centre, axes = _principal(vectors[:, :-2])
        blocks = _blocks(vectors) if len(vectors) else (vectors,)
        parts = [_measured(block, centre, axes) for block in blocks]
        columns = np.concatenate([part.columns for part in parts])
        distance = np.concatenate([part.distance for part in parts])
        main, log_bid = columns[:, -2].astype(np.float64), columns[:, -1].astype(np.float64)
        order = np.argsort(-(log_bid + main + typical_length * distance), kind="stable")
        lengths = typical_length * np.array(_LENGTHS)
        sides = (log_bid[order], main[order], distance[order])
        largest = [np.linalg.norm(columns[:, :-3].astype(np.float64), axis=1), columns[:, -3]]
        largest += [np.abs(main), np.abs(log_bid), distance]
        return cls(
            order,
            columns[order],
            centre,
            axes,
            _corners(*sides, lengths),
            lengths,
            np.array([side.max(initial=0.0) for side in largest], np.float64),
            np.array([max(part.leak for part in parts)]),
        )

    def save(self, folder: Path) -> None:
        """Write `index.bounds.<name>.npy` for each array."""
        for item in fields(self):
            np.save(_file(folder, item.name), getattr(self, item.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Bounds:
        """Map the files of `save`. Raises `SnapshotCorrupt`."""
        try:
            # Plain views: look-ups through NumPy's memmap subclass cost several times more.
            made = cls(
                **{
                    item.name: np.asarray(np.load(_file(folder, item.name), mmap_mode="r"))
                    for item in fields(cls)
                }
            )
        except (OSError, EOFError, ValueError) as error:
            raise SnapshotCorrupt(f"bounds in {folder.name} cannot be read: {error}") from error
        if not made._fits_together():
            raise SnapshotCorrupt(f"the bounds in {folder.name} do not fit together")
        return made

    def asked(self, query: Float64s, slope: float) -> Asked:
        """The bounds' side of one query: float64 [D], and 0 ≤ slope ≤ 1."""
        along = query @ self.axes
        beside = _length(query - self.axes @ along) + _MARGIN
        reduced = np.concatenate((along, (beside, slope, 1.0))).astype(np.float32)
        shift = float(query @ self.centre) + self._slack(query, along, beside, slope)
        return Asked(self, reduced, shift, self._lengthwise(_length(query), slope))

    def _slack(self, query: Float64s, along: Float64s, beside: float, slope: float) -> float:
        """What rounding may take from a bound.

        A float32 sum of n products errs by at most γ_n Σ|x_i y_i|, γ_n = n·u / (1 − n·u), in any
        order of summation (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
        Four more operations stand for the rounding of the query and of the row's and the live bid.
        """
        coordinates, rest, main, log_bid, distance = self.largest.tolist()
        length = _length(along)
        magnitude = length * coordinates + beside * rest + slope * main + log_bid
        operations = (len(along) + 7) * _UNIT
        whole = _length(query) * (distance + _length(self.centre))
        leak = length * float(self.leak[0]) * (1.0 + _MARGIN)
        summed = operations / (1.0 - operations) * magnitude
        return float(summed + leak + _MARGIN * (magnitude + whole))

    def _lengthwise(self, length: float, slope: float) -> Float64s:
        """The length bound, less q·c, of all places from each block on: float64 [blocks]."""
        beyond = max(length - float(self.lengths[-1]), 0.0) * float(self.largest[4])
        low, high = _between(_SLOPES, slope), _between(self.lengths.tolist(), length)
        found = np.full(self.corners.shape[2], beyond)
        for s, of_slope in low:
            for l, of_length in high:  # noqa: E741
                found += of_slope * of_length * self.corners[s, l]
        return found

    def _fits_together(self) -> bool:
        n, blocks = len(self.order), -(-len(self.order) // BLOCK)
        m, grid = self.axes.shape[-1], (len(_SLOPES), len(_LENGTHS), blocks)
        shapes = (self.columns.shape, self.axes.shape, self.corners.shape, self.lengths.shape)
        sizes = (self.largest.shape, self.leak.shape)
        whole = shapes == ((n, m + 3), (len(self.centre), m), grid, (len(_LENGTHS),))
        return whole and sizes == ((5,), (1,))


@dataclass(frozen=True, slots=True)
class Asked:
    """One query's bounds. A row's product is at most `shift` plus its value in `at`, and at most
    `shift` plus `lengthwise` of its place's block: float64 [blocks], falling."""

    bounds: Bounds
    reduced: Float32s
    shift: float
    lengthwise: Float64s

    def at(self, start: int, stop: int) -> Float32s:
        """The bounds of places start ≤ i < stop, less `shift`: float32 [stop − start]."""
        found: Float32s = self.bounds.columns[start:stop] @ self.reduced
        return found

    def at_some(self, places: Int64s) -> Float32s:
        """The bounds of some places, less `shift`: float32 [m]."""
        found: Float32s = self.bounds.columns.take(places, axis=0) @ self.reduced
        return found

    def places_above(self, limit: float) -> int:
        """From this place on no product reaches `limit`."""
        # Falling values, so the count of those that reach the limit is where they end.
        blocks = int(np.searchsorted(-self.lengthwise, self.shift - limit, side="right"))
        return min(blocks * BLOCK, len(self.bounds))


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows' columns, ‖ν − c‖ (float64), and the largest ‖Rᵀe‖."""

    columns: Float32s
    distance: Float64s
    leak: float


def _measured(block: Float32s, centre: Float64s, axes: Float64s) -> _Part:
    apart = block[:, :-2].astype(np.float64) - centre
    along = (apart @ axes).astype(np.float32)
    # From the coordinates as they are stored: what rounding takes from them, e has.
    left = apart - along.astype(np.float64) @ axes.T
    rest = np.sqrt(np.einsum("ij,ij->i", left, left))
    above = np.nextafter(rest.astype(np.float32), np.float32(np.inf))
    leak = float(np.sqrt(((left @ axes) ** 2).sum(axis=1).max(initial=0.0)))
    distance = np.sqrt(np.einsum("ij,ij->i", apart, apart))
    return _Part(np.column_stack((along, above, block[:, -2:])), distance, leak)


def _principal(latent: Float32s) -> tuple[Float64s, Float64s]:
    """The rows' mean, float64 [D], and their principal axes, float64 [D, m], largest first."""
    n, width = latent.shape
    centre, square = np.zeros(width), np.zeros((width, width))
    for block in _blocks(latent):
        whole = block.astype(np.float64)
        centre += whole.sum(axis=0)
        square += whole.T @ whole
    centre /= max(n, 1)
    spread = square / max(n, 1) - np.outer(centre, centre)
    if not np.isfinite(spread).all():
        # The gate refuses a model that is not finite; until it does any axes will do.
        spread = np.eye(width)
    _, vectors = np.linalg.eigh(spread)  # by rising eigenvalue
    return centre, np.ascontiguousarray(vectors[:, ::-1][:, : min(AXES, width)])


def _corners(log_bid: Float64s, main: Float64s, distance: Float64s, lengths: Float64s) -> Float64s:
    starts = np.arange(0, len(log_bid), BLOCK)
    found = np.empty((len(_SLOPES), len(lengths), len(starts)))
    for s, slope in enumerate(_SLOPES):
        for l, length in enumerate(lengths.tolist()):  # noqa: E741
            values = log_bid + slope * main + length * distance
            if len(starts):
                blocks = np.maximum.reduceat(values, starts)
                found[s, l] = np.maximum.accumulate(blocks[::-1])[::-1]
    return found


def _length(vector: Float64s) -> float:
    return math.sqrt(float(vector @ vector))


def _between(grid: tuple[float, ...] | list[float], at: float) -> tuple[tuple[int, float], ...]:
    """The grid's neighbours of a value with their weights; beyond its end the last one alone."""
    right = bisect_right(grid, at)
    if right == len(grid):
        return ((right - 1, 1.0),)
    part = (at - grid[right - 1]) / (grid[right] - grid[right - 1])
    return ((right - 1, 1.0 - part), (right, part))


def _blocks(rows: Float32s) -> Iterator[Float32s]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _file(folder: Path, name: str) -> Path:
    return folder / f"index.bounds.{name}.npy"
