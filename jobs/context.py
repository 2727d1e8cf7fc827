"""What every scheduled job is given: made once, in `jobs.__main__`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.settings import Settings
from app.storage.engine import Database
from app.storage.snapshot_store import SnapshotStore, open_store
from jobs.comparison_measures import ComparisonMeasures
from models.schema import Schema

_ENDS = ("accepted", "repaired", "refused", "skipped", "empty", "failed")
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Measures:
    """What the jobs process tells Prometheus of its training; every series is there from 0 on."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "adscent_jobs_runs", "Training runs by how they ended", ["state"], registry=registry
        )
        self.leading = Gauge(
            "adscent_jobs_leading", "1 while this process leads, else 0", registry=registry
        )
        self.training = Histogram(
            "adscent_training_seconds",
            "Duration of a training run from its chunk to its record",
            registry=registry,
            buckets=_SECONDS,
        )
        self.failures = Counter(
            "adscent_job_failures", "Jobs ended by an error", ["job"], registry=registry
        )
        self.late_clicks = Counter(
            "adscent_late_clicks",
            "Clicks on impressions that had been learned before, learned when they came",
            registry=registry,
        )
        self.left_out = Counter(
            "adscent_impressions_left_out",
            "Impressions that were not learned: their features are of another schema",
            registry=registry,
        )
        self.collected = Counter(
            "adscent_collected_values",
            "Feature values that lost their parameters: unseen for the TTL, carried by no ad",
            ["side"],
            registry=registry,
        )
        self.counted_until = Gauge(
            "adscent_statistics_complete_until_seconds",
            "Every event acknowledged before is in the statistics (seconds since 1970)",
            registry=registry,
        )
        self.erased = Counter(
            "adscent_stored_events_erased_from",
            "Stored impressions that lost a value that was erased",
            registry=registry,
        )
        self.oldest_transaction = Gauge(
            "adscent_oldest_transaction_seconds",
            "Age of the open transaction that holds back what can be trained",
            registry=registry,
        )
        self.comparisons = ComparisonMeasures(registry)
        for state in _ENDS:
            self.runs.labels(state=state)
        for side in ("user", "ad"):
            self.collected.labels(side=side)


@dataclass(frozen=True, slots=True)
class Context:
    """`clock` gives ms since 1970; `training` lets one training run at a time.

    `store`: the local folder of snapshots; `snapshots`: the store that all hosts share.
    """

    settings: Settings
    database: Database
    schema: Schema
    store: Path
    clock: Callable[[], int]
    log: structlog.stdlib.BoundLogger
    measures: Measures
    training: asyncio.Lock = field(default_factory=asyncio.Lock)
    snapshots: SnapshotStore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "snapshots", open_store(self.settings))
