"""Every setting in one table: what it is called, what it is now, its default and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from app.settings import Settings, variable_of

_HIDDEN = "(hidden)"
_SECRET = ("database_url",)

MEANINGS: Mapping[str, str] = {
    "home": "Folder for what is written when nothing else is set: embedded database, snapshots.",
    "features": "The feature schema: what the model sees of users and ads.",
    "snapshots": "Folder or URL (s3://bucket/prefix) of the snapshot store; below home if unset.",
    "database_url": "Your PostgreSQL; if unset, the embedded one of `adscent db`.",
    "host": "Address that `serve` listens on.",
    "port": "Port that `serve` listens on.",
    "metrics_host": "Address of the Prometheus metrics of `serve` and `jobs`.",
    "metrics_port": "Port of the metrics of all workers of `serve`.",
    "jobs_metrics_port": "Port of the metrics of `jobs`.",
    "dashboard_host": "Address that `dashboard` listens on.",
    "dashboard_port": "Port that `dashboard` listens on.",
    "dashboard_session_s": "Seconds after which the dashboard asks for the key again.",
    "dashboard_api": "Where the dashboard finds `serve`; host and port above if unset.",
    "dashboard_metrics": "Where the dashboard finds the metrics; host and port above if unset.",
    "workers": "Worker processes of `serve`.",
    "database_pool": "Most pooled database connections of a worker; it has up to four others.",
    "train_threads": "Threads that train.",
    "chunk_events": "Most impressions of a training chunk: some 600 bytes of memory each to read.",
    "retrain_every_s": "Seconds between training runs.",
    "retention_every_s": "Seconds between looks for what is old enough to go.",
    "horizon_every_s": "Seconds between marks of which transactions have ended: the chunks' edges.",
    "statistics_every_s": "Seconds between countings of new events into the statistics.",
    "attribution_window_s": "Seconds that an impression waits for its click before it is learned.",
    "token_lifetime_s": "Seconds after a decision in which its events are taken.",
    "conversion_window_s": "Seconds after a decision in which its conversions are taken.",
    "click_wait_s": "Seconds that a visitor waits for a click to be durable before going on.",
    "click_rule_window_s": "Seconds over which the three rules below count clicks.",
    "clicks_per_token": "More clicks of one token than these are quarantined.",
    "clicks_per_address": "More clicks of one address than these are quarantined.",
    "clicks_per_impression": "Clicks of an ad above this share of its impressions are quarantined.",
    "event_retention_days": "Days that events are kept; never less than training needs.",
    "erasure_every_s": "Seconds between looks for erased values in stored events.",
    "statistics_retention_days": "Days that hourly statistics are kept.",
    "snapshots_kept": "Newest snapshots whose files are kept; pinned and serving ones always are.",
    "compare_every_s": "Seconds between measurements of a canary or a shadow.",
    "canary_share": "Share of decisions that a new snapshot answers first; 0 promotes at once.",
    "canary_min_clicks": "Clicks that both sides need before a canary is judged.",
    "canary_log_loss_limit": "A canary is taken back when its log loss is worse by more than this.",
    "canary_calibration": "A canary is taken back beyond this factor of calibration, either way.",
    "canary_longest_s": "Seconds after which a canary without enough clicks ends.",
    "catalog_poll_s": "Seconds between looks for changes that no notification told of.",
    "acknowledge_timeout_s": "Seconds that a change waits for all workers before it answers 202.",
    "serve_alone_s": "Seconds that a worker chooses ads without word from the database; then it"
    " answers 503 until it knows of every pause. A dead host keeps changes at 202 as long.",
    "event_buffer": "Events that may wait for their transaction in a worker; beyond it 503.",
    "max_body_bytes": "Longest request body.",
    "connections": "Most open connections of a worker.",
    "request_timeout_s": "Seconds in which a client must have sent a whole request.",
    "key_requests_per_s": "Requests a second of a key that has no limit of its own; 0 for any.",
    "deadline_s": "Seconds after which an answer is of no use, where X-Deadline-Ms does not say.",
    "per_advertiser": "Ads of one advertiser in one decision, where the request does not say.",
    "exploration_share": "Share of the slots in which new ads are tried; 0 for none.",
    "exploration_impressions": "Trials of one ad by one worker under one snapshot, at most.",
    "log_level": "debug, info, warning or error.",
    "log_requests": "Share of requests that are logged.",
    "otel_endpoint": "Where traces go, by OpenTelemetry's HTTP protocol; none if unset.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `value` is None where it has no effect of its own; `is_set`: not the default."""

    variable: str
    value: str
    default: str
    meaning: str
    is_set: bool


def table(chosen: Settings) -> list[Row]:
    """All settings, secrets hidden."""
    default = Settings()
    return [
        Row(
            variable_of(item.name),
            _shown(item.name, getattr(chosen, item.name)),
            _shown(item.name, getattr(default, item.name)),
            MEANINGS[item.name],
            getattr(chosen, item.name) != getattr(default, item.name),
        )
        for item in fields(Settings)
    ]


def markdown() -> str:
    """The table of the documentation."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    rows = table(Settings())
    return "\n".join(
        [*lines, *(f"| `{row.variable}` | {_code(row.default)} | {row.meaning} |" for row in rows)]
    )


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if name in _SECRET:
        return _HIDDEN
    return f"{value:g}" if isinstance(value, float) else str(value)
