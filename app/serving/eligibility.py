"""Which ads may serve now: states, flights and targeting of every row as one packed bitmap."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from app.serving.bitmaps import among, unpacked, without
from app.serving.flights import Edges, edges_after, last_edge
from app.serving.schedules import Shut, Timetable, shut
from app.serving.targeting import Targets
from models.index import packed
from models.types import Bools, Bytes, FeatureValue, Int64s

ACTIVE, PAUSED, RETIRED, UNKNOWN = range(4)
STATE_CODES = {"active": ACTIVE, "paused": PAUSED, "retired": RETIRED}
"""States as the arrays hold them; an UNKNOWN row is indexed but not in this catalog."""

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
    "schedule",
    "targeting",
    "excluded",
)
"""Why an ad is not eligible, the first failing cause winning; None means it is eligible."""

_TEXTS = np.array(REASONS, object)
_KEPT_ROWS = 16_384
"""In a catalog of up to so many rows answers are kept; in larger ones few would be asked for again
before there is no room for them."""
_KEPT_BYTES = 4_000_000
_FEW = 16
"""Causes of less than one row in so many are found row by row, without those of all others."""
_OF_CAMPAIGN, _OF_ADVERTISER = 3, 5
_NOT_STARTED, _ENDED, _SCHEDULE, _TARGETING, _EXCLUDED = range(8, 13)


@dataclass(slots=True)
class _Open:
    """The rows open for serving, packed, true for the times start ≤ now < end in ms.

    `asked_ms`: the time in between that it was made for. `edges`: the flights' that come; `shut`:
    the rows that schedules shut, None without schedules. `causes`: uint8 [n], why each row is not
    open; of an open one, why a user may not see it, which only targeting can decide. None until
    somebody asks. `answers`: for users who meet the same rules (see `Targets.key`) the eligible
    rows, packed, and the reason's code of every row.
    """

    start_ms: int
    asked_ms: int
    rows: Bytes
    edges: Edges
    shut: Shut | None
    causes: Bytes | None = None
    answers: dict[tuple[int, ...], tuple[Bytes, Bytes]] = field(default_factory=dict)

    @property
    def until_ms(self) -> int:
        """Up to when the next edges tell all that changes."""
        until_ms = self.edges.until_ms
        return until_ms if self.shut is None else min(until_ms, self.shut.end_ms)

    @property
    def end_ms(self) -> int:
        return min(self.edges.next_ms, self.until_ms)


@dataclass(frozen=True, slots=True)
class Eligibility:
    """What decides about n rows before any model does; immutable.

    `state`, `campaign_state`, `advertiser_state`: uint8 [n], codes; `starts`, `ends`: int64 [n],
    ms since 1970, end exclusive; `targets`: the compiled targeting of the same rows;
    `schedule_marks`: int64 [n], which of `schedules` is the row's, 0 for none.
    """

    state: Bytes
    campaign_state: Bytes
    advertiser_state: Bytes
    starts: Int64s
    ends: Int64s
    targets: Targets
    schedule_marks: Int64s | None = None
    schedules: Mapping[int, Timetable] = field(default_factory=dict)
    _open: list[_Open] = field(default_factory=list, init=False, repr=False, compare=False)

    def warm_as(self, other: Eligibility) -> None:
        """Make ready what the other was asked for: a request would wait for it for milliseconds."""
        if other._open:
            self._open_at(other._open[0].asked_ms)

    def mask(
        self, user: Mapping[str, FeatureValue], now_ms: int, excluded: Collection[int] = ()
    ) -> Bytes:
        """The eligible rows as a packed bitmap: uint8 [⌈n/8⌉], owned by the caller.

        `user`: values by name without prefix; `excluded`: rows that may not serve.
        """
        if len(self.state) <= _KEPT_ROWS:
            mask = self._kept(user, now_ms)[0].copy()
        else:
            mask = self._eligible(user, now_ms)
        without(mask, excluded)
        return mask

    def reasons_of(
        self, user: Mapping[str, FeatureValue], rows: Int64s, now_ms: int
    ) -> list[str | None]:
        """Why each of some rows (int64 [m]) may not serve this user now; None where it may."""
        if len(self.state) > _KEPT_ROWS:
            return self.reasons(rows, self._eligible(user, now_ms), now_ms)
        codes = self._kept(user, now_ms)[1].take(rows)
        if not codes.any():
            return [None] * len(rows)
        texts: list[str | None] = _TEXTS.take(codes).tolist()
        return texts

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
        is_few = _FEW * len(rows) < len(self.state)
        causes = self._causes_of(rows, now_ms) if is_few else self._causes(now_ms)[rows]
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

    def _eligible(self, user: Mapping[str, FeatureValue], now_ms: int) -> Bytes:
        allowed = self.targets.allowed(user)
        open_rows = self._open_at(now_ms).rows
        return open_rows.copy() if allowed is None else np.bitwise_and(open_rows, allowed)

    def _kept(self, user: Mapping[str, FeatureValue], now_ms: int) -> tuple[Bytes, Bytes]:
        """The eligible rows, packed, and the reason's code of every row; neither may be changed."""
        answers = self._open_at(now_ms).answers
        key = self.targets.key(user)
        found = answers.get(key)
        if found is None:
            mask = self._eligible(user, now_ms)
            eligible = unpacked(mask)[: len(self.state)]
            found = (mask, np.where(eligible, np.uint8(0), self._causes(now_ms)))
            if len(answers) * len(self.state) > _KEPT_BYTES:
                answers.clear()
            answers[key] = found
        return found

    def _causes(self, now_ms: int) -> Bytes:
        """The first failing cause of every row at this time: uint8 [n]."""
        known = self._open_at(now_ms)
        if known.causes is None:
            known.causes = self._causes_of(slice(None), now_ms)
        return known.causes

    def _causes_of(self, rows: Int64s | slice, now_ms: int) -> Bytes:
        """The first failing cause of some rows at this time. The last rule here comes first."""
        closed = self._open_at(now_ms).shut
        code = np.full(len(self.state[rows]), _TARGETING, np.uint8)
        if closed is not None:
            code[closed.rows[rows]] = _SCHEDULE
        code[self.ends[rows] <= now_ms] = _ENDED
        code[self.starts[rows] > now_ms] = _NOT_STARTED
        for states, first in (
            (self.advertiser_state[rows], _OF_ADVERTISER),
            (self.campaign_state[rows], _OF_CAMPAIGN),
            (self.state[rows], 0),
        ):
            code = np.where(states == ACTIVE, code, states + np.uint8(first))
        return code

    def _open_at(self, now_ms: int) -> _Open:
        """Rows active at every level whose flight runs; kept until a flight starts or ends,
        or a schedule opens or shuts."""
        known = self._open[0] if self._open else None
        if known is None or not known.start_ms <= now_ms < known.until_ms:
            known = self._opened(now_ms)
        elif now_ms >= known.end_ms:
            known = self._advanced(known, now_ms)
        self._open[:] = [known]
        return known

    def _advanced(self, known: _Open, now_ms: int) -> _Open:
        """What is open once some flights have started or ended: only their rows are looked at."""
        count = known.edges.passed(now_ms)
        rows, last_ms = known.edges.rows[:count], int(known.edges.times[count - 1])
        bits = unpacked(known.rows)[: len(self.state)]
        bits[rows] = self._serving(rows, now_ms, known.shut)
        return _Open(last_ms, now_ms, packed(bits), known.edges.after(count), known.shut)

    def _opened(self, now_ms: int) -> _Open:
        closed = None
        if self.schedules and self.schedule_marks is not None:
            closed = shut(self.schedule_marks, self.schedules, now_ms)
        start_ms = last_edge(self.starts, self.ends, now_ms)
        return _Open(
            start_ms if closed is None else max(start_ms, closed.start_ms),
            now_ms,
            packed(self._serving(slice(None), now_ms, closed)),
            edges_after(self.starts, self.ends, now_ms),
            closed,
        )

    def _serving(self, rows: Int64s | slice, now_ms: int, closed: Shut | None) -> Bools:
        """Which of some rows are active at every level, in flight, and not shut: bool [m]."""
        found: Bools = (self.starts[rows] <= now_ms) & (now_ms < self.ends[rows])
        states = self.state[rows] | self.campaign_state[rows] | self.advertiser_state[rows]
        found &= states == ACTIVE
        if closed is not None:
            found &= ~closed.rows[rows]
        return found
