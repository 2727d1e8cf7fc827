"""What `serve` and `jobs` tell Prometheus, sampled: rates and percentiles between two samples."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

_KEPT = 900
_APART_S = 1.0
_DECISIONS = "/v1/decisions"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """All series at one moment (seconds since 1970): name and labels to value."""

    at_s: float
    values: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's series that have these labels; None where there is no such one."""
        wanted = set(labels.items())
        found = [v for key, v in self.values.get(name, {}).items() if wanted <= set(key)]
        return sum(found) if found else None

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums of a metric's series by the value of one label."""
        sums: dict[str, float] = {}
        for key, value in self.values.get(name, {}).items():
            for one, text in key:
                if one == label:
                    sums[text] = sums.get(text, 0.0) + value
        return sums


def parsed(texts: Iterable[str], at_s: float) -> Sample:
    """One sample of the expositions of all processes, series of one name and labels summed."""
    values: dict[str, dict[Labels, float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                labels = tuple(sorted(one.labels.items()))
                series = values.setdefault(one.name, {})
                series[labels] = series.get(labels, 0.0) + one.value
    return Sample(at_s, values)


class History:
    """The samples of the last half hour."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=_KEPT)

    def add(self, sample: Sample) -> None:
        """Append a sample, unless the last one is too young for a rate between the two."""
        if not self._samples or sample.at_s - self._samples[-1].at_s >= _APART_S:
            self._samples.append(sample)

    @property
    def last(self) -> Sample | None:
        """The newest sample."""
        return self._samples[-1] if self._samples else None

    @property
    def spans(self) -> list[tuple[Sample, Sample]]:
        """Each sample with the one before it."""
        return list(pairwise(self._samples))

    def recent(self, seconds: float) -> tuple[Sample, Sample] | None:
        """The newest sample and the oldest that is at most so many seconds older."""
        if len(self._samples) < 2:
            return None
        last = self._samples[-1]
        first = next(one for one in self._samples if one.at_s >= last.at_s - seconds)
        return (first, last) if first is not last else (self._samples[-2], last)


def rate(first: Sample, last: Sample, name: str, **labels: str) -> float | None:
    """Growth of a counter per second; None where it is not known or was reset."""
    after = last.total(name, **labels)
    if after is None or last.at_s <= first.at_s:
        return None
    grown = after - (first.total(name, **labels) or 0.0)
    return grown / (last.at_s - first.at_s) if grown >= 0 else None


def growth(first: Sample, last: Sample, name: str, label: str) -> dict[str, float]:
    """Growth of a counter by the value of one label; resets count as nothing."""
    before, after = first.by(name, label), last.by(name, label)
    return {key: max(value - before.get(key, 0.0), 0.0) for key, value in after.items()}


def percentile(first: Sample, last: Sample, share: float, route: str = _DECISIONS) -> float | None:
    """A percentile of the latency of a route between two samples, in seconds.

    Straight lines within the histogram's buckets, so it is an estimate; None without requests.
    """
    counts = _buckets(first, last, route)
    if not counts or counts[-1][1] <= 0:
        return None
    wanted, low, below = share * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / max(count - below, 1e-12)
        low, below = bound, count
    return low


def _buckets(first: Sample, last: Sample, route: str) -> Sequence[tuple[float, float]]:
    """The cumulated growth of each bucket, by its upper bound."""
    found = []
    for key, value in last.values.get("adscent_request_seconds_bucket", {}).items():
        labels = dict(key)
        if labels.get("route") == route:
            series = first.values.get("adscent_request_seconds_bucket", {})
            found.append((float(labels["le"]), max(value - series.get(key, 0.0), 0.0)))
    return sorted(found)
