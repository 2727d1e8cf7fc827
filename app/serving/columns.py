"""The catalog in columns: what a worker keeps of each ad, compact and cheap to change.

Three hundred thousand objects with dictionaries would cost a worker hundreds of MB and long pauses
of the garbage collector, so an ad is a row: numbers in arrays, the rest in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from app.serving.eligibility import ACTIVE, STATE_CODES, UNKNOWN, Eligibility
from app.serving.flights import ALWAYS_MS, NEVER_MS
from app.serving.items import Items
from app.serving.schedules import Timetable, mark, timetable
from app.serving.targeting import Targets
from models.errors import InvalidInput
from models.features import Encoder
from models.types import (
    Ad,
    Advertiser,
    Bools,
    Bytes,
    Campaign,
    Encoded,
    FeatureValue,
    Int64s,
    Targeting,
)

_Item = TypeVar("_Item", bound=np.generic)
_pack_creative = msgspec.msgpack.Encoder().encode
_unpack_creative = msgspec.msgpack.Decoder(dict[str, str]).decode
_MANY_SCHEDULES = 64
"""Looking which schedules are used costs a sort of a column, so that is done once in so many."""


@dataclass(frozen=True, slots=True)
class Columns:
    """n ads, one row each; immutable: a change makes a new one that shares what did not change.

    int64 [n]: `ad_ids`, `campaign_ids`, `advertiser_ids`, `bid_micros`, `features_version`,
    `targeting_marks` (a hash that changes with the targeting), `starts`, `ends`, `schedule_marks`
    (which of `schedules` is the ad's, 0 for none); bool [n]:
    `per_click` (CPC, else CPM); uint8 [n]: the three states' codes; `creatives`: MessagePack;
    `encoded`: a count byte per ad feature, then the value hashes. A row that is indexed but not in
    the catalog has the state UNKNOWN.
    """

    ad_ids: Int64s
    campaign_ids: Int64s
    advertiser_ids: Int64s
    bid_micros: Int64s
    features_version: Int64s
    targeting_marks: Int64s
    starts: Int64s
    ends: Int64s
    schedule_marks: Int64s
    per_click: Bools
    state: Bytes
    campaign_state: Bytes
    advertiser_state: Bytes
    creatives: Items
    encoded: Items
    targets: Targets
    campaign_states: Mapping[int, int]
    advertiser_states: Mapping[int, int]
    schedules: Mapping[int, Timetable]

    def __len__(self) -> int:
        return len(self.ad_ids)

    @classmethod
    def empty(cls) -> Columns:
        """The columns of a catalog without ads."""
        none: dict[str, Any] = {name: np.zeros(0, np.int64) for name in INT64}
        none |= {name: np.zeros(0, np.uint8) for name in CODES}
        return cls(
            **none,
            per_click=np.zeros(0, np.bool_),
            creatives=Items.of(()),
            encoded=Items.of(()),
            targets=Targets.of([]),
            campaign_states={},
            advertiser_states={},
            schedules={},
        )

    def with_ads(self, ads: Sequence[Ad], rows: Int64s, encoder: Encoder) -> Columns:
        """Row `rows[i]` (int64 [m]) holds `ads[i]`; rows from n on are new and without gaps.

        An ad whose features no longer fit the schema keeps those that do: one stale ad must not
        stop a change, least of all a pause.
        """
        if not ads:
            return self
        size = max(len(self), int(rows.max()) + 1)
        arrays: dict[str, Any] = {
            name: _with_values(getattr(self, name), size, rows, values)
            for name, values in self._values(ads).items()
        }
        return replace(
            self,
            **arrays,
            creatives=self.creatives.replaced(
                size, rows, [_pack_creative(dict(ad.creative)) for ad in ads]
            ),
            encoded=self.encoded.replaced(size, rows, [_encode(encoder, ad) for ad in ads]),
            targets=self._targets(ads, size, rows, arrays["targeting_marks"]),
            schedules=self._schedules(ads, arrays["schedule_marks"]),
        )

    def with_states(
        self, campaigns: Iterable[Campaign], advertisers: Iterable[Advertiser]
    ) -> Columns:
        """The same after changes of campaigns and advertisers."""
        of_campaigns = {item.id: STATE_CODES[item.state] for item in campaigns}
        of_advertisers = {item.id: STATE_CODES[item.state] for item in advertisers}
        return replace(
            self,
            campaign_state=_recoded(self.campaign_state, self.campaign_ids, of_campaigns),
            advertiser_state=_recoded(self.advertiser_state, self.advertiser_ids, of_advertisers),
            campaign_states=_merged(self.campaign_states, of_campaigns),
            advertiser_states=_merged(self.advertiser_states, of_advertisers),
        )

    def moved(self, size: int, new_rows: Int64s, ad_ids: Int64s) -> Columns:
        """Row i moved to `new_rows[i]` of `size` rows; `ad_ids` are the new rows' ids.

        Rows that nothing moved to are UNKNOWN. Rows moved to −1 are dropped.
        """
        if len(self) == size and np.array_equal(new_rows, np.arange(size)):
            return self
        kept = new_rows >= 0
        arrays: dict[str, Any] = {
            item: _scattered(getattr(self, item)[kept], size, new_rows[kept])
            for item in (*INT64, *CODES, "per_click")
        }
        arrays["ad_ids"] = ad_ids
        arrays["state"] = _with_unknown(arrays["state"], new_rows[kept])
        return replace(
            self,
            **arrays,
            creatives=self.creatives.moved(size, new_rows),
            encoded=self.encoded.moved(size, new_rows),
            targets=self.targets.reordered(size, new_rows),
            schedules=_used(self.schedules, arrays["schedule_marks"]),
        )

    def eligibility(self) -> Eligibility:
        """What decides about the rows before any model does."""
        return Eligibility(
            self.state,
            self.campaign_state,
            self.advertiser_state,
            self.starts,
            self.ends,
            self.targets,
            self.schedule_marks,
            self.schedules,
        )

    def creative(self, row: int) -> dict[str, str]:
        """The creative of one ad."""
        return _unpack_creative(self.creatives[row])

    def features(self, row: int, features: int) -> Encoded:
        """The encoded ad features of one row; `features` is how many the schema declares."""
        content = self.encoded[row]
        ids = np.frombuffer(content, "<i8", offset=features)
        return Encoded(ids, np.frombuffer(content, np.uint8, features))

    def _schedules(self, ads: Sequence[Ad], marks: Int64s) -> Mapping[int, Timetable]:
        """With those of these ads; every so many new ones, without those that no row has."""
        known = self.schedules
        given = {mark(ad.schedule): ad.schedule for ad in ads if ad.schedule is not None}
        if given.keys() <= known.keys():
            return known
        made = {**known, **{key: timetable(schedule) for key, schedule in given.items()}}
        is_due = len(made) // _MANY_SCHEDULES > len(known) // _MANY_SCHEDULES
        return _used(made, marks) if is_due else made

    def _values(self, ads: Sequence[Ad]) -> dict[str, npt.NDArray[Any]]:
        values: dict[str, npt.NDArray[Any]] = {
            name: np.fromiter(map(of, ads), np.int64, len(ads)) for name, of in _OF_AD.items()
        }
        codes = {
            "state": [STATE_CODES[ad.state] for ad in ads],
            "campaign_state": [self.campaign_states.get(ad.campaign_id, ACTIVE) for ad in ads],
            "advertiser_state": [
                self.advertiser_states.get(ad.advertiser_id, ACTIVE) for ad in ads
            ],
        }
        as_codes = {name: np.array(listed, np.uint8) for name, listed in codes.items()}
        per_click = np.array([ad.bid_type == "cpc" for ad in ads], np.bool_)
        return {**values, **as_codes, "per_click": per_click}

    def _targets(
        self, ads: Sequence[Ad], size: int, rows: Int64s, marks: npt.NDArray[Any]
    ) -> Targets:
        """The compiled targeting: shared, caches and all, unless some ad's targeting changed."""
        if marks is self.targeting_marks and size == len(self):
            return self.targets
        return self.targets.replaced(size, rows, [ad.targeting for ad in ads])


@lru_cache(maxsize=4096)
def _mark(targeting: Targeting) -> int:
    # Not `hash`: it differs between processes, and images of the catalog go from one to another.
    digest = blake2b(msgspec.msgpack.encode(targeting), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


_OF_AD: dict[str, Callable[[Ad], int]] = {
    "ad_ids": lambda ad: ad.id,
    "campaign_ids": lambda ad: ad.campaign_id,
    "advertiser_ids": lambda ad: ad.advertiser_id,
    "bid_micros": lambda ad: ad.bid_micros,
    "features_version": lambda ad: ad.features_version,
    "targeting_marks": lambda ad: _mark(ad.targeting),
    "starts": lambda ad: ALWAYS_MS if ad.flight_start_ms is None else ad.flight_start_ms,
    "ends": lambda ad: NEVER_MS if ad.flight_end_ms is None else ad.flight_end_ms,
    "schedule_marks": lambda ad: mark(ad.schedule),
}
INT64 = tuple(_OF_AD)
CODES = ("state", "campaign_state", "advertiser_state")
"""The names of the columns of whole numbers, and of those of states."""


def _encode(encoder: Encoder, ad: Ad) -> bytes:
    values = encoder.ad_values(ad)
    try:
        made = encoder.encode_ad(values)
    except InvalidInput:
        made = encoder.encode_ad(dict(_that_fit(encoder, values)))
    return made.counts.tobytes() + made.ids.astype("<i8", copy=False).tobytes()


def _that_fit(
    encoder: Encoder, values: Mapping[str, FeatureValue]
) -> Iterator[tuple[str, FeatureValue]]:
    for name, value in values.items():
        with suppress(InvalidInput):
            encoder.encode_ad({name: value})
            yield name, value


def _with_values(
    array: npt.NDArray[_Item], size: int, rows: Int64s, values: npt.NDArray[_Item]
) -> npt.NDArray[_Item]:
    """`array` with `values` at `rows`, grown to `size`; the array itself if nothing changed."""
    if len(array) == size and np.array_equal(array[rows], values):
        return array
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    grown[rows] = values
    return grown


def _recoded(codes: Bytes, ids: Int64s, changed: Mapping[int, int]) -> Bytes:
    """The codes of rows whose campaign or advertiser is among the changed ones, renewed."""
    if not changed or not len(ids):
        return codes
    keys = np.array(sorted(changed), np.int64)
    at = np.minimum(keys.searchsorted(ids), len(keys) - 1)
    rows = np.nonzero(keys[at] == ids)[0]
    renewed = np.array([changed[key] for key in keys.tolist()], np.uint8)[at[rows]]
    return _with_values(codes, len(codes), rows, renewed)


def _merged(known: Mapping[int, int], changed: Mapping[int, int]) -> Mapping[int, int]:
    return {**known, **changed} if changed else known


def _used(schedules: Mapping[int, Timetable], marks: Int64s) -> Mapping[int, Timetable]:
    """The schedules that some row has; the same ones if that is all of them."""
    if not schedules:
        return schedules
    used = set(np.unique(marks).tolist())
    if schedules.keys() <= used:
        return schedules
    return {key: of for key, of in schedules.items() if key in used}


def _scattered(values: npt.NDArray[_Item], size: int, rows: Int64s) -> npt.NDArray[_Item]:
    spread = np.zeros(size, values.dtype)
    spread[rows] = values
    return spread


def _with_unknown(state: Bytes, known_rows: Int64s) -> Bytes:
    known = np.zeros(len(state), np.bool_)
    known[known_rows] = True
    return np.where(known, state, np.uint8(UNKNOWN))
