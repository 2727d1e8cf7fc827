"""Everything that was seen of the traffic, and whether it agrees with what was promised."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from jobs.demo.messages import Answer, Gain, Tick

_RECENT_S = 5.0
_FAULTS_KEPT = 20
RULES = ("random", "unlearned", "chosen", "oracle")


@dataclass(slots=True)
class Ban:
    """From `since_s` until `until_s` no decision that is sent may show the ad."""

    ad_id: int
    state: str
    since_s: float
    until_s: float = float("inf")
    checked: int = 0
    broken: int = 0

    def check(self, answer: Answer) -> None:
        """Hold one decision against it."""
        if self.since_s < answer.sent_s < self.until_s:
            self.checked += 1
            self.broken += self.ad_id in answer.ads


@dataclass(slots=True)
class Hold:
    """From `since_s` on every decision that is sent must be made with one snapshot."""

    snapshot_id: str
    since_s: float
    checked: int = 0
    broken: int = 0

    def check(self, answer: Answer) -> None:
        """Hold one decision against it."""
        if answer.sent_s > self.since_s:
            self.checked += 1
            self.broken += answer.snapshot_id != self.snapshot_id


@dataclass(frozen=True, slots=True)
class Means:
    """Mean gains over some decisions, by rule."""

    decisions: int
    ctr: dict[str, float]
    micros: dict[str, float]

    @property
    def share(self) -> float:
        """The revenue of what was chosen, as a share of the oracle's."""
        return self.micros["chosen"] / self.micros["oracle"] if self.decisions else 0.0


@dataclass(slots=True)
class Ledger:
    """Fed with the traffic's ticks; times are of the monotonic clock."""

    requests: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)
    impressions: int = 0
    clicks: int = 0
    answers: list[Answer] = field(default_factory=list)
    bans: list[Ban] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    snapshots: Counter[str] = field(default_factory=Counter)
    strays: int = 0
    uncertified: int = 0
    _paces: deque[tuple[float, int]] = field(default_factory=deque)
    _seconds: dict[int, list[float]] = field(default_factory=dict)

    def add(self, tick: Tick) -> None:
        """Take in what the traffic's process has reported."""
        self.count(tick.requests, tick.faults)
        self.impressions += tick.impressions
        self.clicks += tick.clicks
        for answer in sorted(tick.answers, key=lambda one: one.sent_s):
            self._take(answer)

    def count(self, requests: int, faults: Sequence[str] = ()) -> None:
        """Count HTTP requests, those of the stage too, and the failures among them."""
        self.requests += requests
        self.failed += len(faults)
        self.faults = [*self.faults, *faults][:_FAULTS_KEPT]
        self._paces.append((time.monotonic(), requests))

    def _take(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.snapshots[answer.snapshot_id] += 1
        self.strays += len(answer.strays)
        self.uncertified += not answer.certified
        for ban in self.bans:
            ban.check(answer)
        for hold in self.holds:
            hold.check(answer)
        second = int(answer.sent_s - self.answers[0].sent_s)
        sums = self._seconds.setdefault(second, [0.0] * len(RULES))
        for place, rule in enumerate(RULES):
            gain: Gain = getattr(answer, rule)
            sums[place] += gain.micros

    def ban(self, ad_id: int, state: str, since_s: float) -> Ban:
        """From now on count every decision that shows the ad."""
        made = Ban(ad_id, state, since_s)
        self.bans.append(made)
        return made

    def hold(self, snapshot_id: str, since_s: float) -> Hold:
        """From now on count every decision that is made with another snapshot."""
        made = Hold(snapshot_id, since_s)
        self.holds.append(made)
        return made

    def since(self, seconds: float) -> list[Answer]:
        """The decisions sent in the last `seconds`, the oldest first."""
        start = time.monotonic() - seconds
        first = len(self.answers)
        while first and self.answers[first - 1].sent_s >= start:
            first -= 1
        return self.answers[first:]

    def requests_per_s(self) -> float:
        """Over the last seconds."""
        now = time.monotonic()
        while self._paces and self._paces[0][0] < now - _RECENT_S:
            self._paces.popleft()
        return sum(count for _, count in self._paces) / _RECENT_S

    def most_shown(self, besides: Collection[int] = ()) -> tuple[int, int]:
        """The ad shown most in the last seconds, and how often; (0, 0) when there is none."""
        shown = Counter(ad_id for answer in self.since(_RECENT_S) for ad_id in answer.ads)
        rest = [(count, ad_id) for ad_id, count in shown.items() if ad_id not in besides]
        count, ad_id = max(rest, default=(0, 0))
        return ad_id, count

    def course(self, rule: str, columns: int) -> list[float]:
        """The revenue by one rule over time, as a share of the oracle's: at most `columns`."""
        place, oracle = RULES.index(rule), RULES.index("oracle")
        seconds = [self._seconds[key] for key in sorted(self._seconds)]
        width = max(-(-len(seconds) // max(columns, 1)), 1)
        parts = [seconds[at : at + width] for at in range(0, len(seconds), width)]
        return [sum(s[place] for s in part) / sum(s[oracle] for s in part) for part in parts]

    def shown_since(self, ad_id: int, since_s: float) -> int:
        """How many decisions sent after a time show the ad."""
        return sum(ad_id in answer.ads for answer in self.answers if answer.sent_s > since_s)


def latency_ms(answers: Sequence[Answer], percentile: float) -> float:
    """A percentile of the decisions' latency in ms; 0 when there are none."""
    return float(np.percentile([one.ms for one in answers], percentile)) if answers else 0.0


def means(answers: Sequence[Answer]) -> Means:
    """Mean click rate and revenue by each rule; zeros when there are no decisions."""
    found = {rule: _mean([getattr(one, rule) for one in answers]) for rule in RULES}
    ctr = {rule: gain.ctr for rule, gain in found.items()}
    return Means(len(answers), ctr, {rule: gain.micros for rule, gain in found.items()})


def _mean(gains: Iterable[Gain]) -> Gain:
    table = np.array([(gain.ctr, gain.micros) for gain in gains]).reshape(-1, 2)
    ctr, micros = table.mean(axis=0) if len(table) else (0.0, 0.0)
    return Gain(float(ctr), float(micros))
