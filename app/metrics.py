"""The metrics of one worker.

Workers write into memory-mapped files in one folder (prometheus_client's multiprocess mode), which
`PROMETHEUS_MULTIPROC_DIR` names and which must be set before a worker imports this module. The
parent process must not import it: it would count as a worker that knows nothing.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

REQUESTS = Counter("adscent_requests_total", "Answered requests", ["route", "method", "status"])
LATENCY = Histogram(
    "adscent_request_seconds",
    "Time from the request's head to the answer's end",
    ["route"],
    buckets=(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
)
DECISIONS = Counter("adscent_decisions_total", "Decisions by certificate", ["certified"])
DECIDED_ADS = Counter("adscent_decided_ads_total", "Ads placed by decisions")
EXPLORED_ADS = Counter("adscent_explored_ads_total", "New ads that were tried by decisions")
SCORED_ADS = Counter("adscent_scored_ads_total", "Ads scored on request")
SHED = Counter(
    "adscent_shed_total",
    "Requests refused with 503 before any work: late, busy (would be late), connections",
    ["reason"],
)
EVENTS = Counter("adscent_events_total", "Events by type and outcome", ["type", "outcome"])
QUARANTINED = Counter(
    "adscent_events_quarantined_total",
    "Clicks set aside, repeats included, by the rule they broke: token, address, ad",
    ["rule"],
)
CLICKS_NOT_AWAITED = Counter(
    "adscent_clicks_not_awaited_total",
    "Visitors sent on before their click was durable: slow, unavailable",
    ["reason"],
)
TOKENS_REFUSED = Counter("adscent_tokens_refused_total", "Tokens refused by reason", ["reason"])
SNAPSHOT_LOADED_AT = Gauge(
    "adscent_snapshot_made_seconds",
    "When the served snapshot was made, by worker (seconds since 1970)",
    multiprocess_mode="liveall",
)
SNAPSHOT_FAULTS = Counter("adscent_snapshot_faults_total", "Snapshots that could not be loaded")
CATALOG_VERSION = Gauge(
    "adscent_catalog_version", "Catalog version applied, by worker", multiprocess_mode="liveall"
)
DATABASE_REACHABLE = Gauge(
    "adscent_database_reachable", "1 while the database answers", multiprocess_mode="livemin"
)
SWAPS = Histogram(
    "adscent_swap_seconds",
    "Time from a promoted snapshot to its first request, load and warm-up included",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Note one answered request."""
    named = method if method in _METHODS else "other"  # a caller may send any word
    REQUESTS.labels(route, named, status).inc()
    LATENCY.labels(route).observe(seconds)
