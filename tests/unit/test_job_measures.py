"""What the jobs process tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

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
