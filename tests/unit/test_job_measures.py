"""What the jobs process tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, enable_created_metrics, generate_latest

from app.settings import Settings
from jobs.__main__ import measured
from jobs.context import Measures


def test_every_series_is_there_before_the_first_run() -> None:
    """An alert on a rate needs the zero that comes before the first failure."""
    registry = CollectorRegistry()
    Measures(registry)
    text = generate_latest(registry).decode()
    for state in ("accepted", "repaired", "refused", "skipped", "empty", "failed"):
        assert f'adscent_jobs_runs_total{{state="{state}"}} 0.0' in text
    for side in ("user", "ad"):
        assert f'adscent_collected_values_total{{side="{side}"}} 0.0' in text
    assert "adscent_jobs_leading 0.0" in text
    assert "adscent_training_seconds_count 0.0" in text


def test_no_series_is_shown_that_is_not_documented() -> None:
    """The client library adds a gauge `_created` to each counter unless it is told not to."""
    enable_created_metrics()
    registry, _ = measured(Settings())
    text = generate_latest(registry).decode()
    assert 'adscent_job_failures_total{job="retrain"} 0.0' in text
    assert "_created" not in text
