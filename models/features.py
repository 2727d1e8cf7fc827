"""Feature values to 64-bit hashes: the one encoder of ingestion, training, scoring and replay.

A value is identified by xxh3-64 of `side.feature`, a NUL and the value's canonical text, so no
two processes need to share a dictionary. The schema itself is in `models.schema`.
"""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xxhash

from models.errors import FeatureUnknown, FeatureValueInvalid
from models.schema import (
    Feature,
    GateSettings,
    ModelSettings,
    Schema,
    load_schema,
    parse_schema,
)
from models.types import Ad, Blobs, Bools, Bytes, Encoded, FeatureValue, Int64s, Ragged, in_slices

__all__ = [
    "Encoder",
    "Feature",
    "GateSettings",
    "ModelSettings",
    "Packing",
    "Schema",
    "canonical",
    "load_schema",
    "pack",
    "parse_schema",
    "stack",
    "unpack",
    "value_hash",
]

MAX_TEXT = 1000
"""Longest canonical text of one value, in characters."""
MAX_VALUES = 255
"""Most values of one multi-valued feature: their number is kept in one byte."""
_CACHED_VALUES = 65_536
_CACHED_TEXT = 100


def canonical(feature: Feature, value: object) -> str:
    """The text that stands for one value, alike however JSON, CSV or Parquet spelled it.

    Text in NFC; 7, 7.0 and "7" are "7"; true is "true"; None, "" and [] are "", a value of its
    own. A number of a numeric feature becomes its bucket, "b3" for edges[2] ≤ x < edges[3].
    Raises `FeatureValueInvalid`.
    """
    if value is None or value == "" or value == []:
        return ""
    if feature.kind == "numeric":
        return f"b{bisect_right(feature.edges, _number(feature, value))}"
    if isinstance(value, str):
        return _text(feature, value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return _text(feature, _digits(feature, value))
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    raise _invalid(feature, value, "it must be a text, a finite number, true or false")


def value_hash(feature: Feature, text: str) -> int:
    """xxh3-64 of `side.name`, a NUL and the canonical text, as a signed 64-bit integer."""
    unsigned = xxhash.xxh3_64_intdigest(f"{feature.full_name}\0{text}".encode())
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def _invalid(feature: Feature, value: object, limit: str) -> FeatureValueInvalid:
    shown = value if len(text := repr(value)) <= 80 else text[:77] + "…"
    remedy = f"The schema declares {feature.full_name} as {feature.kind}."
    return FeatureValueInvalid(feature.full_name, shown, limit, remedy)


def _text(feature: Feature, value: str) -> str:
    text = value if value.isascii() else unicodedata.normalize("NFC", value)
    if len(text) > MAX_TEXT:
        raise _invalid(feature, value, f"at most {MAX_TEXT} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _invalid(feature, value, "it must be valid Unicode") from error
    return text


def _digits(feature: Feature, value: int) -> str:
    # Python refuses to print integers of thousands of digits; nobody means one of more than 300.
    if value.bit_length() > MAX_TEXT:
        raise _invalid(feature, "a huge integer", "at most 300 digits")
    return str(value)


def _number(feature: Feature, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _invalid(feature, value, "it must be a number")
    if isinstance(value, str) and ("_" in value or not value.isascii()):
        raise _invalid(feature, value, "it must be a number")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise _invalid(feature, value, "it must be a finite number") from error
    if not math.isfinite(number):
        raise _invalid(feature, value, "it must be a finite number")
    return number


class _Column:
    """Encodes the values of one feature and remembers the hashes of recent ones."""

    __slots__ = ("erased", "feature", "missing", "name", "recent")

    def __init__(self, feature: Feature, erased: Mapping[int, int]) -> None:
        self.feature, self.name = feature, feature.name
        self.missing = value_hash(feature, "")
        self.recent: dict[str | int | float, int] = {}
        self.erased = erased

    def one(self, value: object) -> int:
        """The hash of a single value; 1 and 1.0 share an entry, True is kept apart from them."""
        if type(value) is bool and self.feature.kind != "numeric":
            value = "true" if value else "false"
        if type(value) is str or type(value) is int or type(value) is float:
            known = self.recent.get(value)
            if known is not None:
                return known
            return self._remember(value, self._hash(value))
        return self._hash(value)

    def _hash(self, value: object) -> int:
        """The hash of a value; that of a missing one for a value that is erased."""
        made = value_hash(self.feature, canonical(self.feature, value))
        return self.erased.get(made, made)

    def many(self, value: object) -> list[int]:
        """The sorted distinct hashes of a multi-valued feature."""
        if not isinstance(value, list | tuple):
            return [self.one(value)]
        found = {self.one(item) for item in value if item is not None and item != ""}
        found.discard(self.missing)  # stands for erased ones
        hashes = sorted(found)
        if len(hashes) > MAX_VALUES:
            raise _invalid(self.feature, f"{len(hashes)} values", f"at most {MAX_VALUES} values")
        return hashes or [self.missing]

    def _remember(self, value: str | int | float, made: int) -> int:
        if len(self.recent) >= _CACHED_VALUES:
            self.recent.clear()
        if type(value) is not str or len(value) <= _CACHED_TEXT:
            self.recent[value] = made
        return made


class Encoder:
    """Encodes users and ads under one schema. Names come without their `user.` or `ad.`.

    A feature that is not given is missing; one that the schema lacks raises `FeatureUnknown`; a
    value its kind does not take raises `FeatureValueInvalid`. Safe to share between threads.

    `missing`: the hashes of values that are erased, each with that of its feature when missing (see
    `models.erasure`): such a value is encoded as if it had not been given.
    """

    def __init__(self, schema: Schema, missing: Mapping[int, int] | None = None) -> None:
        self.schema, erased = schema, missing or {}
        self._user = tuple(_Column(feature, erased) for feature in schema.user)
        self._ad = tuple(_Column(feature, {}) for feature in schema.ad)
        self._ones = {size: _ones(size) for size in (len(self._user), len(self._ad))}
        derived = {"creative": "id", "campaign": "campaign_id", "advertiser": "advertiser_id"}
        self._derived = {key: id_ for key, id_ in derived.items() if schema.has("ad", key)}

    def encode_user(self, values: Mapping[str, FeatureValue]) -> Encoded:
        """The features of one request: of the user and of its context."""
        return self._encode("user", self._user, values)

    def encode_ad(self, values: Mapping[str, FeatureValue]) -> Encoded:
        """The features of one ad, those of its ids included (see `ad_values`)."""
        return self._encode("ad", self._ad, values)

    def ad_values(self, ad: Ad) -> Mapping[str, FeatureValue]:
        """The ad's own features and its ids, as far as the schema declares those."""
        return {**ad.features, **{key: getattr(ad, id_) for key, id_ in self._derived.items()}}

    def user_hashes(self, values: Mapping[str, FeatureValue]) -> tuple[list[int], list[int]]:
        """The same as `encode_user` in plain lists: value hashes, and how many of each feature."""
        return _hashes("user", self._user, values)

    def _encode(
        self, side: str, columns: tuple[_Column, ...], values: Mapping[str, FeatureValue]
    ) -> Encoded:
        return self.encoded(*_hashes(side, columns, values))

    def encoded(self, hashes: list[int], counts: list[int]) -> Encoded:
        """The hashes of one side as arrays."""
        same = len(hashes) == len(counts)
        kept = self._ones[len(counts)] if same else np.array(counts, np.uint8)
        return Encoded(np.array(hashes, np.int64), kept)


def _hashes(
    side: str, columns: tuple[_Column, ...], values: Mapping[str, FeatureValue]
) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    counts: list[int] = []
    found = 0
    for column in columns:
        value = values.get(column.name)
        if value is None:
            found += column.name in values
            ids.append(column.missing)
            counts.append(1)
            continue
        found += 1
        if column.feature.kind == "multi":
            hashes = column.many(value)
            ids += hashes
            counts.append(len(hashes))
        else:
            ids.append(column.one(value))
            counts.append(1)
    if found != len(values):
        raise _unknown(side, columns, values)
    return ids, counts


def _ones(size: int) -> Bytes:
    ones = np.ones(size, np.uint8)
    ones.flags.writeable = False  # one array serves every request
    return ones


def _unknown(
    side: str, columns: tuple[_Column, ...], values: Mapping[str, FeatureValue]
) -> FeatureUnknown:
    declared = [column.name for column in columns]
    name = next(name for name in values if name not in declared)
    limit = f"the schema declares {', '.join(declared)}"
    return FeatureUnknown(f"{side}.{name}", values[name], limit, "Correct the name or drop it.")


def pack(user: Encoded, ad: Encoded) -> bytes:
    """One decision's features: a count byte per feature (user, then ad), then the ids, int64 LE."""
    ids = np.concatenate((user.ids, ad.ids)).astype("<i8", copy=False)
    return user.counts.tobytes() + ad.counts.tobytes() + ids.tobytes()


class Packing(NamedTuple):
    """`pack` for one user beside many ads: the user's count bytes and ids, and how many ad features
    there are."""

    counts: bytes
    ids: bytes
    ad_features: int

    @classmethod
    def of(cls, user: Encoded, ad_features: int) -> Packing:
        """The packing of one user."""
        ids = user.ids.astype("<i8", copy=False)
        return cls(user.counts.tobytes(), ids.tobytes(), ad_features)

    def beside(self, ad: bytes) -> bytes:
        """The decision's features, the ad's given as its count bytes and then its ids."""
        return b"".join((self.counts, ad[: self.ad_features], self.ids, ad[self.ad_features :]))


def unpack(schema: Schema, blobs: Sequence[bytes]) -> tuple[Ragged, Ragged]:
    """The user and ad sides of many packed decisions.

    Raises `FeatureValueInvalid` naming the first blob that does not fit the schema.
    """
    users, width = len(schema.user), len(schema.user) + len(schema.ad)
    held = blobs if isinstance(blobs, Blobs) else Blobs.of(blobs)
    fitting = fits(schema, held)
    if not fitting.all():
        _refuse(held, int(fitting.argmin()))
    counts = held.heads(width)
    user, ad = _room(counts[:, :users]), _room(counts[:, users:])
    for rows in in_slices(len(held)):
        at = held.starts[rows] + width
        at += 8 * _fill(user, rows, held, at)
        _fill(ad, rows, held, at)
    return user, ad


def fits(schema: Schema, held: Blobs) -> Bools:
    """Which packed decisions have the schema's count of features, each with a value: bool [n]."""
    width = len(schema.user) + len(schema.ad)
    fitting: Bools = (held.lengths >= width) & ((held.lengths - width) % 8 == 0)
    rows = None if fitting.all() else np.flatnonzero(fitting)
    counts = held.heads(width, rows)
    lengths = held.lengths if rows is None else held.lengths[rows]
    shaped = (counts.sum(axis=1, dtype=np.int64) * 8 + width == lengths) & counts.all(axis=1)
    fitting[slice(None) if rows is None else rows] = shaped
    return fitting


def _refuse(blobs: Blobs, row: int) -> None:
    limit = "it does not fit the schema it should have been packed under"
    remedy = "Rebuild the model from events of one schema."
    raise FeatureValueInvalid(f"features[{row}]", blobs[row][:24].hex(), limit, remedy)


def _room(counts: Bytes) -> Ragged:
    """Room for the ids of rows with these counts, and the pointers into it."""
    pointers = _pointers(counts)
    return Ragged(np.empty(pointers[-1], np.int64), pointers, counts.shape[1])


def _fill(side: Ragged, rows: slice, held: Blobs, starts: Int64s) -> Int64s:
    """Copy the ids of `rows`, which lie from `starts` on in the buffer; returns how many of each.

    All ids of a slice are taken at once, at places that are worked out for each: rows differ in
    their counts, and to sort them by these takes three times as long.
    """
    ptr = side.ptr[rows.start * side.features : rows.stop * side.features + 1 : side.features]
    counts = np.diff(ptr)
    places = np.repeat(starts - 8 * (ptr[:-1] - ptr[0]), counts)
    places += np.arange(0, 8 * len(places), 8)
    side.ids[ptr[0] : ptr[-1]] = held.words()[places]
    return counts


def stack(rows: Sequence[Encoded], features: int) -> Ragged:
    """Encoded rows of one side, `features` each, as one CSR block."""
    if not rows:
        return Ragged(np.empty(0, np.int64), np.zeros(1, np.int64), features)
    counts = np.concatenate([row.counts for row in rows])
    return Ragged(np.concatenate([row.ids for row in rows]), _pointers(counts), features)


def _pointers(counts: np.ndarray) -> Int64s:
    pointers = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts.ravel(), out=pointers[1:])
    return pointers
