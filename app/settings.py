"""Every setting of every process: one frozen object, read from the environment at start."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit


class SettingInvalid(Exception):
    """An environment variable that cannot be used; the message names it and the remedy."""


class AddressUnavailable(SettingInvalid):
    """An address that cannot be listened on, most often because another program does."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the environment variable `ADSCENT_<FIELD>`; `DATABASE_URL` has no prefix.

    Times ending in `_s` are seconds. `home` holds what the server writes when nothing else is
    set: the embedded database and the snapshots.
    """

    home: Path = Path(".adscent")
    features: Path = Path("features.toml")
    snapshots: str | None = None
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9090
    jobs_metrics_port: int = 9091
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 8081
    dashboard_session_s: float = 43_200.0
    dashboard_api: str | None = None
    dashboard_metrics: str | None = None
    workers: int = 1
    database_pool: int = 5
    train_threads: int = 1
    chunk_events: int = 1_000_000
    retrain_every_s: float = 300.0
    retention_every_s: float = 3600.0
    horizon_every_s: float = 10.0
    statistics_every_s: float = 10.0
    attribution_window_s: float = 1800.0
    token_lifetime_s: float = 86400.0
    conversion_window_s: float = 604_800.0
    click_wait_s: float = 1.0
    click_rule_window_s: float = 60.0
    clicks_per_token: int = 5
    clicks_per_address: int = 30
    clicks_per_impression: float = 0.5
    event_retention_days: int = 30
    erasure_every_s: float = 30.0
    statistics_retention_days: int = 400
    snapshots_kept: int = 20
    compare_every_s: float = 60.0
    canary_share: float = 0.0
    canary_min_clicks: int = 200
    canary_log_loss_limit: float = 0.01
    canary_calibration: float = 1.25
    canary_longest_s: float = 86_400.0
    catalog_poll_s: float = 1.0
    acknowledge_timeout_s: float = 2.0
    serve_alone_s: float = 300.0
    event_buffer: int = 50_000
    max_body_bytes: int = 2_000_000
    connections: int = 800
    request_timeout_s: float = 10.0
    key_requests_per_s: float = 0.0
    deadline_s: float = 2.0
    per_advertiser: int = 1
    exploration_share: float = 0.02
    exploration_impressions: int = 500
    log_level: str = "info"
    log_requests: float = 0.0
    otel_endpoint: str | None = None

    @property
    def snapshot_store(self) -> Path:
        """The folder of the snapshot store; below `home`, what is copied from and to `snapshots`
        where that is a URL."""
        if self.snapshots is None or self.snapshot_url is not None:
            return self.home / "snapshots"
        return Path(self.snapshots)

    @property
    def snapshot_url(self) -> str | None:
        """The URL of the snapshot store; None for a folder."""
        return self.snapshots if "://" in (self.snapshots or "") else None


_LEVELS = ("debug", "info", "warning", "error")
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_LONGEST_S = 1e9  # beyond it dates overflow
_PORT = (0, 65_535)
_COUNT = (1, 2**31 - 1)
_LIMITS: Mapping[str, tuple[float, float]] = {
    "port": _PORT,
    "metrics_port": _PORT,
    "jobs_metrics_port": _PORT,
    "dashboard_port": _PORT,
    "workers": (1, 256),
    "train_threads": (1, 64),
    "chunk_events": (1000, 100_000_000),
    "database_pool": _COUNT,
    "event_retention_days": (1, 36_500),
    "statistics_retention_days": (1, 36_500),
    "snapshots_kept": _COUNT,
    "canary_share": (0, 0.5),  # the incumbent answers the rest, and is what it is compared with
    "canary_min_clicks": _COUNT,
    "canary_calibration": (1, 1000),
    "event_buffer": _COUNT,
    "max_body_bytes": _COUNT,
    "connections": _COUNT,
    "clicks_per_token": _COUNT,
    "clicks_per_address": _COUNT,
    "key_requests_per_s": (0, 1_000_000),
    "log_requests": (0, 1),
    "per_advertiser": (1, 50),
    "exploration_share": (0, 1),
    "exploration_impressions": _COUNT,
}
_MAY_BE_ZERO = ("attribution_window_s", "acknowledge_timeout_s")


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; unset variables keep their default.

    Raises `SettingInvalid` for values out of bounds and unknown `ADSCENT_` variables: one message
    names all of them, a line each.
    """
    given = os.environ if environment is None else environment
    faults = list(_unknown_names(given))
    values: dict[str, object] = {}
    for item in fields(Settings):
        name = variable_of(item.name)
        if name in given:
            try:
                values[item.name] = _parsed(item.name, given[name], str(item.type))
            except SettingInvalid as error:
                faults.append(str(error))
    if faults:
        raise SettingInvalid("\n".join(faults))
    return Settings(**values)  # type: ignore[arg-type]  # each value was parsed to its field's type


def environment_of(file: Path) -> dict[str, str]:
    """The variables of a file of lines NAME=VALUE, as systemd and Docker take them.

    Empty lines and those that start with # are left out; quotes around a value are dropped.
    Raises `SettingInvalid`, which shows no value.
    """
    found = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise SettingInvalid(f"{file}, line {number}: not of the form NAME=VALUE. Correct it")
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name] = value[1:-1] if is_quoted else value
    return found


@contextmanager
def listening(host: str, port: int, prefix: str) -> Iterator[None]:
    """Turn a failure to listen there into `AddressUnavailable`, which names the settings.

    `prefix`: what comes before PORT in the setting, such as `ADSCENT_METRICS_`.
    """
    try:
        yield
    except OSError as error:
        host_prefix = prefix.replace("_JOBS_", "_")  # one host for both kinds of metrics
        raise AddressUnavailable(
            f"cannot listen on {host}:{port} ({error.strerror or error}). Stop the program that"
            f" listens there, or set {prefix}PORT (or {host_prefix}HOST) to another address"
        ) from error


def variable_of(field: str) -> str:
    """The environment variable of a field."""
    return "DATABASE_URL" if field == "database_url" else f"ADSCENT_{field.upper()}"


def _unknown_names(given: Mapping[str, str]) -> Iterator[str]:
    known = {variable_of(item.name) for item in fields(Settings)}
    for name in given:
        if name == "ADSCENT_DATABASE_URL":
            yield f"{name} is not a setting. Set DATABASE_URL, without prefix"
        elif name.startswith("ADSCENT_") and name not in known:
            yield f"{name} is not a setting; known: {', '.join(sorted(known))}"


def _parsed(field: str, text: str, kind: str) -> object:
    if field == "database_url":
        return _database_url(text)
    if field == "snapshots":
        return _snapshots(text)
    if field == "log_level":
        return _log_level(text)
    if field == "otel_endpoint":
        return _endpoint(text)
    if "Path" in kind:
        return Path(text)
    return text if kind.startswith("str") else _number(field, text, kind)


def _number(field: str, text: str, kind: str) -> int | float:
    low, high = _LIMITS.get(field, (0, _LONGEST_S))
    is_open = field not in _LIMITS and field not in _MAY_BE_ZERO
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        number = math.nan
    if low <= number <= high and not (is_open and number == low):
        return number
    what = "a whole number" if kind == "int" else "a number"
    lowest = f"more than {low}" if is_open else f"at least {low}"
    limit = f"{what}, {lowest} and at most {high:.10g}"
    name, default = variable_of(field), getattr(Settings(), field)
    raise SettingInvalid(
        f"{name}={text!r} is not allowed: it must be {limit}. Change it, or unset it for {default}"
    )


def _endpoint(text: str) -> str:
    if not text or re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        return text
    raise SettingInvalid(
        f"ADSCENT_OTEL_ENDPOINT={text!r} is not allowed: it must be the address of a receiver of"
        " OTLP over HTTP, such as http://127.0.0.1:4318. Correct it, or unset it for no traces"
    )


def _log_level(text: str) -> str:
    if text.lower() in _LEVELS:
        return text.lower()
    raise SettingInvalid(
        f"ADSCENT_LOG_LEVEL={text!r} is not allowed: it must be one of {', '.join(_LEVELS)}."
        " Change it, or unset it for info"
    )


def _database_url(text: str) -> str:
    """The text, when it has the form of a URL of PostgreSQL; errors echo no part of it."""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not text or (parts.scheme in _SCHEMES and all(map(_is_host, hosts))):
        return text
    raise SettingInvalid(
        "DATABASE_URL (not shown, it may hold a password) is not allowed: it must have the form"
        " postgresql://USER:PASSWORD@HOST:PORT/DATABASE, the port from 1 to 65535. Correct it"
        " (special characters of the password as %XX), or unset it to use `adscent db`"
    )


def _snapshots(text: str) -> str | None:
    """A folder or a URL without a secret: settings are shown and logged."""
    scheme, mark, rest = text.partition("://")
    if not mark or (scheme and rest and not re.search(r"[@?#]", rest)):
        return text or None
    raise SettingInvalid(
        "ADSCENT_SNAPSHOTS (not shown, it may hold a password) is not allowed: it must be a folder,"
        " or a URL such as s3://bucket/prefix without user, password and query. Give those to the"
        " driver, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or unset it"
    )


def _is_host(text: str) -> bool:
    match = re.fullmatch(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    return match is not None and 1 <= int(match[1] or 5432) <= 65_535
