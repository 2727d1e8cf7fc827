"""What the jobs process tells Prometheus of snapshots: by their part, so series stay few.

The id of a snapshot stands in one metric alone, `adscent_snapshot_info`, which has a line for each
part that is played now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.storage.comparisons import Comparison, Role
from models.comparison import sides

_OUTCOMES = ("promoted", "rolled_back")
_FIGURES = {
    "impressions": "Matured impressions that the side answered",
    "clicks": "Clicks on them",
    "spend_micros": "What advertisers pay for them",
    "log_loss": "Log loss per impression of the side's pCTR",
    "calibration": "Predicted over observed clicks of the side",
}


class ComparisonMeasures(Collector):
    """Shows what it was last given; the figures of a comparison end with it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._roles: Mapping[Role, UUID] = {}
        self._running: Sequence[Comparison] = ()
        self.ended = Counter(
            "adscent_canaries_ended",
            "Canaries that their rule ended",
            ["outcome"],
            registry=registry,
        )
        for outcome in _OUTCOMES:
            self.ended.labels(outcome=outcome)
        registry.register(self)

    def show(self, roles: Mapping[Role, UUID], running: Sequence[Comparison]) -> None:
        """Replace what is shown."""
        self._roles, self._running = dict(roles), tuple(running)

    def collect(self) -> Iterable[Metric]:
        """The families, each with a few lines at most."""
        info = GaugeMetricFamily(
            "adscent_snapshot_info",
            "1 for the snapshot of each part: incumbent, previous, canary, shadow, head",
            labels=["role", "snapshot_id"],
        )
        for part, snapshot_id in self._roles.items():
            info.add_metric([part, str(snapshot_id)], 1)
        yield info
        for name, text in _FIGURES.items():
            family = GaugeMetricFamily(
                f"adscent_comparison_{name}", text, labels=["comparison", "role"]
            )
            for one in self._running:
                both = sides(one.sums, shadow=one.kind == "shadow")
                for role, side in zip((one.kind, "incumbent"), both, strict=True):
                    value = getattr(side, name)
                    if value is not None:
                        family.add_metric([one.kind, role], value)
            yield family
