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
    snapshots: Path | None = None
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9090
    jobs_metrics_port: int = 9091
    workers: int = 1
    database_pool: int = 5
    train_threads: int = 1
    retrain_every_s: float = 300.0
    retention_every_s: float = 3600.0
    horizon_every_s: float = 10.0
    attribution_window_s: float = 1800.0
    token_lifetime_s: float = 86400.0
    conversion_window_s: float = 604_800.0
    click_wait_s: float = 1.0
    click_rule_window_s: float = 60.0
    clicks_per_token: int = 5
    clicks_per_address: int = 30
    clicks_per_impression: float = 0.5
    event_retention_days: int = 30
    snapshots_kept: int = 20
    catalog_poll_s: float = 1.0
    acknowledge_timeout_s: float = 2.0
    event_buffer: int = 50_000
    max_body_bytes: int = 2_000_000
    connections: int = 800
    deadline_s: float = 2.0
    per_advertiser: int = 1
    exploration_share: float = 0.02
    exploration_impressions: int = 500
    log_level: str = "info"

    @property
    def snapshot_store(self) -> Path:
        """The folder of the snapshot store."""
        return self.snapshots or self.home / "snapshots"


_LEVELS = ("debug", "info", "warning", "error")
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
_LONGEST_S = 1e9  # beyond it dates overflow
_PORT = (0, 65_535)
_COUNT = (1, 2**31 - 1)
_LIMITS: Mapping[str, tuple[int, int]] = {
    "port": _PORT,
    "metrics_port": _PORT,
    "jobs_metrics_port": _PORT,
    "workers": (1, 256),
    "train_threads": (1, 64),
    "database_pool": _COUNT,
    "event_retention_days": (1, 36_500),
    "snapshots_kept": _COUNT,
    "event_buffer": _COUNT,
    "max_body_bytes": _COUNT,
    "connections": _COUNT,
    "clicks_per_token": _COUNT,
    "clicks_per_address": _COUNT,
    "per_advertiser": (1, 50),
    "exploration_share": (0, 1),
    "exploration_impressions": _COUNT,
}
_MAY_BE_ZERO = ("attribution_window_s", "acknowledge_timeout_s")


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; unset variables keep their default.

    Raises `SettingInvalid` for a value out of bounds or an unknown `ADSCENT_` variable.
    """
    given = os.environ if environment is None else environment
    _check_names(given)
    values: dict[str, object] = {}
    for item in fields(Settings):
        name = _variable(item.name)
        if name in given:
            values[item.name] = _parsed(item.name, given[name], str(item.type))
    return Settings(**values)  # type: ignore[arg-type]  # each value was parsed to its field's type


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


def _variable(field: str) -> str:
    return "DATABASE_URL" if field == "database_url" else f"ADSCENT_{field.upper()}"


def _check_names(given: Mapping[str, str]) -> None:
    known = {_variable(item.name) for item in fields(Settings)}
    for name in given:
        if name == "ADSCENT_DATABASE_URL":
            raise SettingInvalid(f"{name} is not a setting. Set DATABASE_URL, without prefix")
        if name.startswith("ADSCENT_") and name not in known:
            raise SettingInvalid(f"{name} is not a setting; known: {', '.join(sorted(known))}")


def _parsed(field: str, text: str, kind: str) -> object:
    if field == "database_url":
        return _database_url(text)
    if field == "log_level":
        return _log_level(text)
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
    limit = f"{what}, {lowest} and at most {high:.0f}"
    name, default = _variable(field), getattr(Settings(), field)
    raise SettingInvalid(
        f"{name}={text!r} is not allowed: it must be {limit}. Change it, or unset it for {default}"
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


def _is_host(text: str) -> bool:
    match = re.fullmatch(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?", text)
    return match is not None and 1 <= int(match[1] or 5432) <= 65_535
