"""Which ads may serve now: states, flights and targeting of every row as one packed bitmap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from app.serving.targeting import Targets
from models.index import packed
from models.types import Bools, Bytes, FeatureValue, Int64s

ACTIVE, PAUSED, RETIRED, UNKNOWN = range(4)
STATE_CODES = {"active": ACTIVE, "paused": PAUSED, "retired": RETIRED}
"""States as the arrays hold them; an UNKNOWN row is indexed but not in this catalog."""

ALWAYS_MS, NEVER_MS = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""Start of a flight without a start, end of one without an end."""

REASONS = (
    None,
    "paused",
    "retired",
    "unknown_ad",
    "campaign_paused",
    "campaign_retired",
    "advertiser_paused",
    "advertiser_retired",
    "not_started",
    "ended",
    "targeting",
    "excluded",
)
"""Why an ad is not eligible, the first failing cause winning; None means it is eligible."""

_TEXTS = np.array(REASONS, object)
_BITS = (1 << np.arange(8)).astype(np.uint8)
_UNPACKED_BYTES = 2048
"""Up to this length a whole bitmap is unpacked sooner than some of its bits are picked."""
_OF_CAMPAIGN, _OF_ADVERTISER = 3, 5
_NOT_STARTED, _ENDED, _TARGETING, _EXCLUDED = range(8, 12)


@dataclass(slots=True)
class _Open:
    """The rows open for serving, packed, true for the times start ≤ now < end in ms.

    `causes`: uint8 [n], why each row is not; of an open one, why a user may not see it, which only
    targeting can decide. None until somebody asks.
    """

    start_ms: int
    end_ms: int
    rows: Bytes
    causes: Bytes | None = None


@dataclass(frozen=True, slots=True)
class Eligibility:
    """What decides about n rows before any model does; immutable.

    `state`, `campaign_state`, `advertiser_state`: uint8 [n], codes; `starts`, `ends`: int64 [n],
    ms since 1970, end exclusive; `targets`: the compiled targeting of the same rows.
    """

    state: Bytes
    campaign_state: Bytes
    advertiser_state: Bytes
    starts: Int64s
    ends: Int64s
    targets: Targets
    _open: list[_Open] = field(default_factory=list, init=False, repr=False, compare=False)

    def mask(
        self, user: Mapping[str, FeatureValue], now_ms: int, excluded: Collection[int] = ()
    ) -> Bytes:
        """The eligible rows as a packed bitmap: uint8 [⌈n/8⌉], owned by the caller.

        `user`: values by name without prefix; `excluded`: rows that may not serve.
        """
        allowed = self.targets.allowed(user)
        open_rows = self._open_at(now_ms).rows
        mask = open_rows.copy() if allowed is None else np.bitwise_and(open_rows, allowed)
        without(mask, excluded)
        return mask

    def reasons(
        self, rows: Int64s, mask: Bytes, now_ms: int, excluded: Collection[int] = ()
    ) -> list[str | None]:
        """Why each of some rows (int64 [m]) is not in `mask`, which `mask()` made; else None."""
        if among(mask, rows).all():
            return [None] * len(rows)
        texts: list[str | None] = _TEXTS[self.codes(rows, mask, now_ms, excluded)].tolist()
        return texts

    def codes(
        self, rows: Int64s, mask: Bytes, now_ms: int, excluded: Collection[int] = ()
    ) -> Bytes:
        """The same as indices into `REASONS`: uint8 [m]."""
        causes = self._causes(now_ms)[rows]
        if excluded:
            # An excluded ad whose targeting fails as well is still reported as excluded.
            left_out = np.isin(rows, np.fromiter(excluded, np.int64, len(excluded)))
            causes[left_out & (causes == _TARGETING)] = _EXCLUDED
        causes[among(mask, rows)] = 0
        return causes

    def reason(
        self,
        row: int,
        user: Mapping[str, FeatureValue],
        now_ms: int,
        excluded: Collection[int] = (),
    ) -> str | None:
        """Why one row is not eligible: its first failing cause; None if it is."""
        mask = self.mask(user, now_ms, excluded)
        return self.reasons(np.array([row]), mask, now_ms, excluded)[0]

    def _causes(self, now_ms: int) -> Bytes:
        """The first failing cause of every row at this time: uint8 [n]."""
        known = self._open_at(now_ms)
        if known.causes is None:
            known.causes = self._found_causes(now_ms)
        return known.causes

    def _found_causes(self, now_ms: int) -> Bytes:
        """The last rule here comes first."""
        code = np.full(len(self.state), _TARGETING, np.uint8)
        code[self.ends <= now_ms] = _ENDED
        code[self.starts > now_ms] = _NOT_STARTED
        for states, first in (
            (self.advertiser_state, _OF_ADVERTISER),
            (self.campaign_state, _OF_CAMPAIGN),
            (self.state, 0),
        ):
            code = np.where(states == ACTIVE, code, states + np.uint8(first))
        return code

    def _open_at(self, now_ms: int) -> _Open:
        """Rows active at every level whose flight runs; kept until a flight starts or ends."""
        known = self._open[0] if self._open else None
        if known is None or not known.start_ms <= now_ms < known.end_ms:
            known = self._opened(now_ms)
            self._open[:] = [known]
        return known

    def _opened(self, now_ms: int) -> _Open:
        running = (self.starts <= now_ms) & (now_ms < self.ends)
        active = (self.state | self.campaign_state | self.advertiser_state) == ACTIVE
        edges = np.concatenate((self.starts, self.ends))
        before, after = edges[edges <= now_ms], edges[edges > now_ms]
        start_ms = int(before.max(initial=ALWAYS_MS))
        return _Open(start_ms, int(after.min(initial=NEVER_MS)), packed(running & active))


def without(mask: Bytes, rows: Collection[int]) -> None:
    """Take some rows out of a bitmap, in place."""
    for row in rows:
        mask[row >> 3] &= 255 ^ (1 << (row & 7))


def among(mask: Bytes, rows: Int64s) -> Bools:
    """Which of some rows (int64 [m]) the bitmap holds: bool [m]."""
    if len(mask) <= _UNPACKED_BYTES:
        return np.unpackbits(mask, bitorder="little").view(np.bool_).take(rows)
    found: Bools = (mask.take(rows >> 3) & _BITS.take(rows & 7)) != 0
    return found
