"""Types that cross package borders: the catalog's rows, events and encoded arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

Scalar = str | int | float | bool
FeatureValue = Scalar | list[Scalar] | None
State = Literal["active", "paused", "retired"]
BidType = Literal["cpc", "cpm"]
EventType = Literal["impression", "click", "conversion", "close"]

ROWS_AT_ONCE = 8192
"""Rows that the vectorised paths take at once: bounds their memory to a few MB."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

MAX_ID = 2**53 - 1
"""Largest id of an ad, campaign or advertiser: the largest integer that JSON readers keep exact."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One targeting condition on one user feature: one of `values`, or `minimum` ≤ x ≤ `maximum`.

    `feature` is the full name, `user.geo`. Exactly one of the two forms is set. A multi-valued
    feature meets the clause when any of its values does; a missing value meets none.
    """

    feature: str
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Targeting:
    """Every clause of `all`, at least one of `any` (if there are some), no clause of `none`."""

    all: tuple[Clause, ...] = ()
    any: tuple[Clause, ...] = ()
    none: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Hours:
    """A part of each of some days, in minutes of the day: start inclusive, end exclusive.

    `days`: some of `DAYS`, in their order. An end at or before the start is on the next day.
    """

    days: tuple[str, ...]
    start_minute: int
    end_minute: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The hours in which an ad may serve, by the clock of a time zone of the IANA database."""

    timezone: str
    hours: tuple[Hours, ...]


@dataclass(frozen=True, slots=True)
class Advertiser:
    """An advertiser; when it is not active none of its ads is eligible."""

    id: int
    state: State = "active"
    name: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign of one advertiser; when it is not active none of its ads is eligible."""

    id: int
    advertiser_id: int
    state: State = "active"
    name: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Ad:
    """An ad as the catalog holds it.

    `bid_micros` is per click for `cpc`, per thousand impressions for `cpm`. `features` holds the
    schema's ad features by name without the `ad.` prefix and without the derived `creative`,
    `campaign` and `advertiser`. Flight times are ms since 1970, start inclusive, end exclusive;
    within them the `schedule`, if there is one, says when it serves.
    `version` is the catalog version of the last change of any kind, `features_version` that of the
    last change of `features` or of the campaign: an index built before it holds a stale vector.
    """

    id: int
    campaign_id: int
    advertiser_id: int
    bid_micros: int
    bid_type: BidType = "cpc"
    state: State = "active"
    features: Mapping[str, FeatureValue] = field(default_factory=dict)
    targeting: Targeting = Targeting()
    flight_start_ms: int | None = None
    flight_end_ms: int | None = None
    creative: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    features_version: int = 0
    schedule: Schedule | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """A place on the publisher's pages: its floor, and the ads for slots that nobody buys.

    `floor_micros`: least eCPM; `house_ads`: ids of ads of the catalog, the first preferred, which
    serve there only where the auction leaves a slot empty.
    """

    name: str
    floor_micros: int = 0
    house_ads: tuple[int, ...] = ()
    version: int = 0


@dataclass(frozen=True, slots=True)
class CatalogChanges:
    """Everything that changed after some catalog version, up to `version`."""

    version: int
    advertisers: tuple[Advertiser, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    ads: tuple[Ad, ...] = ()
    placements: tuple[Placement, ...] = ()


class Event(msgspec.Struct, frozen=True, gc=False):
    """One impression, click, conversion or close of one decided ad, as its token proves it.

    The natural key is (decided_ms, decision_id, slot, type): a repeat is a duplicate. `features`
    is `models.features.pack` of what the decision was made with. Money is in micros; only a
    conversion has a value. `quarantined_by` names the rule that keeps it from being learned.
    """

    type: EventType
    decided_ms: int
    decision_id: UUID
    slot: int
    ad_id: int
    snapshot_id: UUID
    catalog_version: int
    price_micros: int
    propensity: float
    placement: str
    features: bytes
    value_micros: int | None = None
    quarantined_by: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """The feature values of one user or one ad, hashed.

    `ids`: int64 [nnz], value hashes in the order of the schema's features; `counts`: uint8 [F],
    how many of them belong to each feature (at least 1: missing is a value of its own).
    """

    ids: Int64s
    counts: Bytes


@dataclass(frozen=True, slots=True)
class Ragged:
    """The feature values of n users or n ads: a CSR block.

    The values of row i, feature f are `ids[ptr[i * features + f] : ptr[i * features + f + 1]]`.
    `ids`: int64 [nnz]; `ptr`: int64 [n * features + 1].
    """

    ids: Int64s
    ptr: Int64s
    features: int

    def __len__(self) -> int:
        return (len(self.ptr) - 1) // self.features

    def rows(self, start: int, stop: int) -> Ragged:
        """The rows start ≤ i < stop; `ids` is a view, `ptr` is shifted to start at 0."""
        ptr = self.ptr[start * self.features : stop * self.features + 1]
        return Ragged(self.ids[ptr[0] : ptr[-1]], ptr - ptr[0], self.features)

    def take(self, rows: Int64s) -> Ragged:
        """The given rows, in that order and as often as they are named."""
        cells = (rows[:, None] * self.features + np.arange(self.features)).ravel()
        starts, counts = self.ptr[cells], self.ptr[cells + 1] - self.ptr[cells]
        ptr = np.zeros(len(cells) + 1, np.int64)
        np.cumsum(counts, out=ptr[1:])
        places = np.repeat(starts - ptr[:-1], counts) + np.arange(ptr[-1])
        return Ragged(self.ids[places], ptr, self.features)


class Blobs(Sequence[bytes]):
    """Byte strings that lie in one buffer: number i is `data[starts[i] : starts[i] + lengths[i]]`.

    A sequence of `bytes`, each made when it is asked for: a million of them would take longer to
    make than to read. `starts` and `lengths`: int64 [n].
    """

    def __init__(self, data: bytes | bytearray | Bytes, starts: Int64s, lengths: Int64s) -> None:
        self.data, self.starts, self.lengths = data, starts, lengths

    @classmethod
    def of(cls, blobs: Sequence[bytes]) -> Blobs:
        """The same byte strings, end to end."""
        lengths = np.fromiter(map(len, blobs), np.int64, len(blobs))
        return cls(b"".join(blobs), np.cumsum(lengths) - lengths, lengths)

    def heads(self, width: int, rows: Int64s | None = None) -> Bytes:
        """The first `width` bytes of each, or of those in `rows`: uint8 [n, width].

        Each must be as long as that.
        """
        starts = self.starts if rows is None else self.starts[rows]
        places = max(len(self.data) - width + 1, 0)
        # An item of `width` bytes at every place of the buffer: taking some is one copy each.
        windows = np.ndarray((places,), f"V{width}", self.data, strides=(1,))
        return windows[starts].view(np.uint8).reshape(len(starts), width)

    def take(self, rows: Int64s) -> Blobs:
        """Those in `rows`, over the same buffer."""
        return Blobs(self.data, self.starts[rows], self.lengths[rows])

    def words(self) -> Int64s:
        """The eight bytes at every place of the buffer as a number, little end first; no copy."""
        places = max(len(self.data) - 7, 0)
        return np.ndarray((places,), "<i8", self.data, strides=(1,))

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Blobs: ...
    def __getitem__(self, at: int | slice) -> bytes | Blobs:
        if isinstance(at, slice):
            return Blobs(self.data, self.starts[at], self.lengths[at])
        start = int(self.starts[at])
        return bytes(self.data[start : start + int(self.lengths[at])])

    def __eq__(self, other: object) -> bool:
        """Equal to any sequence of the same byte strings."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of any list


@dataclass(frozen=True, slots=True)
class Batch:
    """n impressions in time order, ready to train on or to score.

    `time_ms`: int64 [n]; `ad_id`: int64 [n]; `label`: float32 [n], 0 or 1; `user` and `ad`: the
    encoded features of both sides, n rows each.
    """

    time_ms: Int64s
    ad_id: Int64s
    label: Float32s
    user: Ragged
    ad: Ragged

    def __len__(self) -> int:
        return len(self.label)

    def rows(self, start: int, stop: int) -> Batch:
        """The impressions start ≤ i < stop."""
        cut = slice(start, stop)
        return Batch(
            self.time_ms[cut],
            self.ad_id[cut],
            self.label[cut],
            self.user.rows(start, stop),
            self.ad.rows(start, stop),
        )

    def take(self, rows: Int64s) -> Batch:
        """The given impressions, in that order."""
        columns = (self.time_ms[rows], self.ad_id[rows], self.label[rows])
        return Batch(*columns, self.user.take(rows), self.ad.take(rows))


def in_slices(n: int) -> Iterator[slice]:
    """The rows 0 … n − 1 in slices of `ROWS_AT_ONCE`."""
    for start in range(0, n, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, n))


def join_ragged(first: Ragged, second: Ragged) -> Ragged:
    """The rows of `first`, then those of `second`."""
    return Ragged(
        np.concatenate([first.ids, second.ids]),
        np.concatenate([first.ptr, second.ptr[1:] + first.ptr[-1]]),
        first.features,
    )


def join_batches(first: Batch, second: Batch) -> Batch:
    """The impressions of `first`, then those of `second`."""
    return Batch(
        np.concatenate([first.time_ms, second.time_ms]),
        np.concatenate([first.ad_id, second.ad_id]),
        np.concatenate([first.label, second.label]),
        join_ragged(first.user, second.user),
        join_ragged(first.ad, second.ad),
    )


def empty_batch(user_features: int, ad_features: int) -> Batch:
    """A batch of no impressions."""
    none, start = np.zeros(0, np.int64), np.zeros(1, np.int64)
    user, ad = Ragged(none, start, user_features), Ragged(none, start, ad_features)
    return Batch(none, none, np.zeros(0, np.float32), user, ad)
