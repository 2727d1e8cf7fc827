"""OFFSET: the event-prediction model, its raw training state and the copy that is served.

`pCTR = σ(s)`, `s = b + Σ w_u + Σ w_a + ν_u · ν_a` (M. Aharon et al., arXiv 1308.1792; the equations
are printed in arXiv 2312.05052; the main effects `w` are an addition: two more coordinates with the
other side fixed at 1). A user feature's vector has a block of `overlap` entries for each other user
feature and a block of `alone` entries for itself. For each pair of features the two blocks are
multiplied entry by entry; the alone blocks are appended. The ad's vector is the sum of its
features' vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.interactions import Interactions
from models.interactions import first as first_interactions
from models.kernels import Shape
from models.types import ROWS_AT_ONCE, Bytes, Encoded, Float32s, Float64s, Int64s, Ragged

if TYPE_CHECKING:
    from models.features import Schema

FIRST_VARIANCE = 0.1
"""First guess of a feature's variance of main effects: a standard deviation of a third of a logit.
"""

BIAS_VARIANCE = 4.0
"""Prior variance of the bias: the configured base rate may be off by two logits either way."""


@dataclass(frozen=True, slots=True)
class Table:
    """The trainer's parameters of one side's feature values, one row a value, in order of birth.

    `keys`: int64 [n], value hashes; `latent`: float32 [n, width]; `main`: float32 [n];
    `latent_evidence` and `main_evidence`: the step rule's accumulators, same shapes, zero at birth:
    what the data adds to the prior's precision, or sums of gradients; `dual`: float32 [n], the
    multiplier of each norm constraint; `touched_ms`: int64 [n], time of the last event; `feature`:
    uint8 [n], index of the value's feature in its side.
    """

    keys: Int64s
    latent: Float32s
    main: Float32s
    latent_evidence: Float32s
    main_evidence: Float32s
    dual: Float32s
    touched_ms: Int64s
    feature: Bytes

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def width(self) -> int:
        """Entries of each latent vector."""
        return int(self.latent.shape[1])

    def norms(self) -> Float64s:
        """The Euclidean norm of each latent vector: float64 [n]."""
        square = np.einsum("ij,ij->i", self.latent, self.latent, dtype=np.float64)
        return np.asarray(np.sqrt(square))

    def copy(self) -> Table:
        """A deep copy: nothing shared."""
        return Table(*(np.array(getattr(self, name)) for name in self.__slots__))


def empty_table(width: int) -> Table:
    """A table without rows."""
    none = np.zeros(0, np.float32)
    wide = np.zeros((0, width), np.float32)
    keys = np.zeros(0, np.int64)
    return Table(keys, wide, none, wide, none, none, keys, np.zeros(0, np.uint8))


@dataclass(frozen=True, slots=True)
class State:
    """The trainer's raw state: constraints may be violated here, never in the published `Model`.

    `user_variance`, float64 [K], and `ad_variance`, float64 [A]: the prior variance of each
    feature's main effects, as far as it is learned.
    """

    schema_hash: str
    user: Table
    ad: Table
    bias: float
    bias_precision: float
    user_variance: Float64s
    ad_variance: Float64s
    interactions: Interactions
    seed: int


def genesis(schema: Schema, base_rate: float, seed: int) -> State:
    """The state before the first event: no rows, and a bias that predicts `base_rate`."""
    overlap, alone = schema.model.overlap, schema.model.alone
    shape = Shape(len(schema.user), len(schema.ad), overlap, alone)
    return State(
        schema_hash=schema.hash,
        user=empty_table(schema.user_width),
        ad=empty_table(schema.dimensions),
        bias=float(np.log(base_rate / (1.0 - base_rate))),
        bias_precision=1.0 / BIAS_VARIANCE,
        user_variance=np.full(len(schema.user), FIRST_VARIANCE),
        ad_variance=np.full(len(schema.ad), FIRST_VARIANCE),
        interactions=first_interactions(shape),
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each entry of the user vector comes from in the K feature vectors laid end to end.

    `left` and `right`: int64 [pairs * overlap]; `alone`: int64 [K * alone]. The user vector is
    `[flat[left] * flat[right], flat[alone]]`.
    """

    left: Int64s
    right: Int64s
    alone: Int64s


@lru_cache(maxsize=64)
def layout(user_features: int, overlap: int, alone: int) -> Layout:
    """The layout of a schema's shape. Block l of feature k skips k itself."""
    width = (user_features - 1) * overlap + alone
    entries = np.arange(overlap)
    left, right = [], []
    for k in range(user_features):
        for other in range(k + 1, user_features):
            left.append(k * width + (other - 1) * overlap + entries)
            right.append(other * width + k * overlap + entries)
    last = (user_features - 1) * overlap + np.arange(alone)
    alones = [k * width + last for k in range(user_features)]
    return Layout(_joined(left), _joined(right), _joined(alones))


def _joined(parts: list[Int64s]) -> Int64s:
    return np.concatenate([np.zeros(0, np.int64), *parts])


@dataclass(frozen=True)
class Model:
    """What is served: read-only, every vector inside its radius. Unseen values are zeros.

    `user_keys`: int64 [n], ascending; `user_latent`: float32 [n, d]; `user_main`: float32 [n];
    `user_feature`: uint8 [n], the index of each value's feature among the user features;
    `ad_keys`: int64 [m], ascending; `ad_latent`: float32 [m, D]; `ad_main`: float32 [m];
    `ad_variance`: float32 [m], how uncertain each `ad_main` is, and `ad_prior_variance`: float64
    [A], that of unseen values, by ad feature; both are empty where that is not known.
    Arrays may be memory-mapped.
    """

    user_keys: Int64s
    user_latent: Float32s
    user_main: Float32s
    user_feature: Bytes
    ad_keys: Int64s
    ad_latent: Float32s
    ad_main: Float32s
    bias: float
    user_features: int
    overlap: int
    alone: int
    ad_variance: Float32s = field(default_factory=lambda: np.zeros(0, np.float32))
    ad_prior_variance: Float64s = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        # Plain views: look-ups through NumPy's memmap subclass cost several times more.
        for name in ("keys", "latent", "main"):
            for side in ("user", "ad"):
                array = np.asarray(getattr(self, f"{side}_{name}"))
                object.__setattr__(self, f"{side}_{name}", array)

    @property
    def layout(self) -> Layout:
        """Where each entry of the user vector comes from."""
        return layout(self.user_features, self.overlap, self.alone)

    def user_vector(self, encoded: Encoded) -> tuple[Float32s, float]:
        """ν_u, float32 [D], and Σ w_u of one user."""
        return self.user_vector_at(self.user_rows(encoded.ids).tolist(), encoded.counts.tolist())

    def user_rows(self, ids: Int64s) -> Int64s:
        """The row of each value of the user's side, −1 where it is unseen: int64 [n]."""
        rows, seen = found(self.user_keys, ids)
        return np.where(seen, rows, -1)

    def user_vector_at(self, rows: list[int], counts: list[int]) -> tuple[Float32s, float]:
        """ν_u, float32 [D], and Σ w_u of one user whose values have these rows.

        `rows`: as from `user_rows`; `counts`: how many of them belong to each feature.
        """
        if not len(self.user_keys):
            return np.zeros(self.ad_latent.shape[1], np.float32), 0.0
        latent, main = self.user_latent.take(rows, 0), self.user_main.take(rows)
        if -1 in rows:  # the last row's vector stands there
            unseen = [at for at, row in enumerate(rows) if row < 0]
            latent[unseen], main[unseen] = 0.0, 0.0
        if len(rows) > len(counts):
            latent, main = _means(latent, main, counts)
        where, flat = self.layout, latent.ravel()
        pairs = flat.take(where.left) * flat.take(where.right)
        return np.concatenate((pairs, flat.take(where.alone))), sum(main.tolist())

    def ad_vectors(self, ads: Ragged) -> tuple[Float32s, Float32s]:
        """ν_a, float32 [n, D], and Σ w_a, float32 [n], of n ads."""
        n = len(ads)
        latent = np.zeros((n, self.ad_latent.shape[1]), np.float32)
        main = np.zeros(n, np.float32)
        for start, stop in _slices(n):
            some = ads.rows(start, stop)
            cells, cell_main = self._ad_cells(some)
            latent[start:stop] = cells.reshape(stop - start, some.features, -1).sum(axis=1)
            main[start:stop] = cell_main.reshape(-1, some.features).sum(axis=1)
        return latent, main

    def user_vectors(self, users: Ragged) -> tuple[Float32s, Float32s]:
        """ν_u, float32 [n, D], and Σ w_u, float32 [n], of n users."""
        n, where = len(users), self.layout
        latent = np.zeros((n, self.ad_latent.shape[1]), np.float32)
        main = np.zeros(n, np.float32)
        for start, stop in _slices(n):
            some = users.rows(start, stop)
            cells, cell_main = _cells(self.user_keys, self.user_latent, self.user_main, some)
            flat = cells.reshape(stop - start, -1)
            pairs = flat[:, where.left] * flat[:, where.right]
            latent[start:stop] = np.concatenate((pairs, flat[:, where.alone]), axis=1)
            main[start:stop] = cell_main.reshape(-1, some.features).sum(axis=1)
        return latent, main

    def score(self, users: Ragged, ads: Ragged) -> Float32s:
        """s of each row's (user, ad): float32 [n]; pCTR is σ(s). Memory is bounded."""
        scores = np.zeros(len(users), np.float32)
        for start, stop in _slices(len(users)):
            user, user_main = self.user_vectors(users.rows(start, stop))
            ad, ad_main = self._repeated_ad_vectors(ads.rows(start, stop))
            inner = np.einsum("ij,ij->i", user, ad)
            scores[start:stop] = inner + user_main + ad_main + np.float32(self.bias)
        return scores

    def _repeated_ad_vectors(self, ads: Ragged) -> tuple[Float32s, Float32s]:
        """`ad_vectors`, each different ad computed once: of a log's rows most repeat some ad."""
        first, which = _distinct(ads)
        if 2 * len(first) > len(ads):
            return self.ad_vectors(ads)
        latent, main = self.ad_vectors(ads.take(first))
        return latent[which], main[which]

    def _ad_cells(self, ads: Ragged) -> tuple[Float32s, Float32s]:
        return _cells(self.ad_keys, self.ad_latent, self.ad_main, ads)


def sigmoid(scores: npt.ArrayLike) -> Float64s:
    """σ(s) in float64, without overflow."""
    values = np.asarray(scores, np.float64)
    tail = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, tail) / (1.0 + tail))


def _distinct(block: Ragged) -> tuple[Int64s, Int64s]:
    """The first row of each different content, and for every row which of them it equals.

    Rows are told apart by 64 bits mixed from their values' hashes, as values are by theirs.
    """
    if not len(block):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    mixed = block.ids ^ (block.ids >> 29)
    mixed *= np.int64(0x1CE4E5B9BF58476D)
    mixed ^= mixed >> 32
    sums = np.add.reduceat(mixed, block.ptr[: -1 : block.features])
    _, first, which = np.unique(sums, return_index=True, return_inverse=True)
    return first, which


def _slices(n: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, ROWS_AT_ONCE):
        yield start, min(start + ROWS_AT_ONCE, n)


def found(keys: Int64s, ids: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """The row of each id in ascending `keys` (0 where unseen) and which were seen."""
    if not len(keys):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
    rows = np.minimum(keys.searchsorted(ids), len(keys) - 1)
    seen = keys[rows] == ids
    return rows, seen


def _cells(
    keys: Int64s, latent: Float32s, main: Float32s, block: Ragged
) -> tuple[Float32s, Float32s]:
    """The mean vector and main effect of each row's each feature: [n * features, width] and [..]"""
    counts = np.diff(block.ptr)
    if not len(keys):
        return np.zeros((len(counts), latent.shape[1]), np.float32), np.zeros(
            len(counts), np.float32
        )
    rows, seen = found(keys, block.ids)
    first = block.ptr[:-1] - block.ptr[0]
    vectors, mains = latent[rows[first]], main[rows[first]]
    vectors[~seen[first]], mains[~seen[first]] = 0.0, 0.0
    _average(vectors, mains, latent, main, (rows, seen), first, counts)
    return vectors, mains


def _average(
    vectors: Float32s,
    mains: Float32s,
    latent: Float32s,
    main: Float32s,
    found: tuple[Int64s, npt.NDArray[np.bool_]],
    first: Int64s,
    counts: Int64s,
) -> None:
    """Turn each cell's first value, in `vectors` and `mains`, into the mean of all its values.

    Most cells hold one. Adding the others rank by rank, where there are some, takes a fifth of the
    time of one reduction over all groups.
    """
    rows, seen = found
    several = left = np.flatnonzero(counts > 1)
    nth = 1
    while len(left):
        places = first[left] + nth
        known = seen[places]
        vectors[left[known]] += latent[rows[places[known]]]
        mains[left[known]] += main[rows[places[known]]]
        nth += 1
        left = left[counts[left] > nth]
    share = (1.0 / counts[several]).astype(np.float32)
    vectors[several] *= share[:, None]
    mains[several] *= share


def _means(vectors: Float32s, mains: Float32s, counts: list[int]) -> tuple[Float32s, Float32s]:
    """Means over consecutive groups of `counts` (each at least 1) rows."""
    starts = [0, *accumulate(counts[:-1])]
    share = np.array([1.0 / count for count in counts], np.float32)
    means: Float32s = np.add.reduceat(vectors, starts, 0) * share[:, None]
    mean_mains: Float32s = np.add.reduceat(mains, starts) * share
    return means, mean_mains
