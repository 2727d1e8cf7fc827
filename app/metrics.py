"""The metrics of one worker.

Workers write into memory-mapped files in one folder (prometheus_client's multiprocess mode), which
`PROMETHEUS_MULTIPROC_DIR` names and which must be set before a worker imports this module. The
parent process must not import it: it would count as a worker that knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product

from prometheus_client import Counter, Gauge, Histogram

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

WORKERS = Gauge("adscent_workers", "Workers that run", multiprocess_mode="livesum")
REQUESTS = Counter("adscent_requests_total", "Answered requests", ["route", "method", "status"])
LATENCY = Histogram(
    "adscent_request_seconds",
    "Time from the request's head to the answer's end",
    ["route"],
    buckets=(
        0.0005,
        0.001,
        0.002,
        0.003,
        0.005,
        0.0075,
        0.01,
        0.02,
        0.05,
        0.1,
        0.25,
        0.5,
        1.0,
        5.0,
    ),
)
DECISIONS = Counter(
    "adscent_decisions_total",
    "Decisions by certificate and by the role of the snapshot: incumbent, canary",
    ["certified", "role"],
)
DECIDED_ADS = Counter("adscent_decided_ads_total", "Ads placed by decisions")
EXPLORED_ADS = Counter("adscent_explored_ads_total", "New ads that were tried by decisions")
SCORED_ADS = Counter(
    "adscent_scored_ads_total",
    "Ads scored on request, by the role of the snapshot: incumbent, canary",
    ["role"],
)
SHED = Counter(
    "adscent_shed_total",
    "Requests refused before any work: late, busy (would be late), connections; slow (clients)",
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
ERASED_EVENTS = Counter(
    "adscent_events_erased_from_total",
    "Impressions whose token had a value that is erased: stored without it",
)
EVENTS_WAITING = Gauge(
    "adscent_events_waiting",
    "Events taken and not yet durable, when the last request of events ended",
    multiprocess_mode="livesum",
)
TOKENS_REFUSED = Counter("adscent_tokens_refused_total", "Tokens refused by reason", ["reason"])
RATE_LIMITED = Counter(
    "adscent_rate_limited_total", "Requests refused with 429: their key's rate is used up"
)
KEY_EXPIRY = Gauge(
    "adscent_next_key_expiry_seconds",
    "When the first of the live API keys ends (seconds since 1970), +Inf where none does",
    multiprocess_mode="livemin",
)
SNAPSHOT_LOADED_AT = Gauge(
    "adscent_snapshot_made_seconds",
    "When the snapshot of each role was made, by worker (seconds since 1970); 0 for none",
    ["role"],
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

_EVENTS = ("impression", "click", "conversion", "close")
_STARTED: Sequence[tuple[Counter, Iterable[tuple[str, ...]]]] = (
    (EVENTS, product(_EVENTS, ("accepted", "duplicate", "too_old"))),
    (EVENTS, [("unknown", "rejected")]),
    (QUARANTINED, zip(("token", "address", "ad"))),
    (
        TOKENS_REFUSED,
        zip(("malformed", "unknown_key", "forged", "expired", "not_a_conversion")),
    ),
    (CLICKS_NOT_AWAITED, zip(("slow", "unavailable"))),
    (SHED, zip(("late", "busy", "connections", "slow"))),
)


def _start_at_zero() -> None:
    """A rate over a series that does not exist yet is no value, and its alert never fires."""
    for counter, series in _STARTED:
        for values in series:
            counter.labels(*values)


_start_at_zero()


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Note one answered request."""
    _count_of(route, method_named(method), status).inc()
    _times_of(route).observe(seconds)


# Finding a series by its labels costs more than counting in it.
@cache
def _count_of(route: str, method: str, status: int) -> Counter:
    return REQUESTS.labels(route, method, status)


@cache
def _times_of(route: str) -> Histogram:
    return LATENCY.labels(route)


def method_named(method: str) -> str:
    """The method, or "other": a caller may send any word, and each would be a series of its own."""
    return method if method in _METHODS else "other"
