"""Every setting of every process: one frozen object, read from the environment at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path


class SettingInvalid(Exception):
    """An environment variable that cannot be used; the message names it and the remedy."""


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
    retrain_every_s: float = 300.0
    retention_every_s: float = 3600.0
    horizon_every_s: float = 10.0
    attribution_window_s: float = 1800.0
    token_lifetime_s: float = 86400.0
    event_retention_days: int = 30
    snapshots_kept: int = 20
    catalog_poll_s: float = 1.0
    acknowledge_timeout_s: float = 2.0
    event_buffer: int = 50_000
    max_body_bytes: int = 2_000_000
    log_level: str = "info"

    @property
    def snapshot_store(self) -> Path:
        """The folder of the snapshot store."""
        return self.snapshots or self.home / "snapshots"


def from_environment(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; unset variables keep their default.

    Raises `SettingInvalid` for a value of the wrong type or an unknown `ADSCENT_` variable.
    """
    given = os.environ if environment is None else environment
    values: dict[str, object] = {}
    for item in fields(Settings):
        name = "DATABASE_URL" if item.name == "database_url" else f"ADSCENT_{item.name.upper()}"
        if name in given:
            values[item.name] = _parsed(name, given[name], str(item.type))
    known = {f"ADSCENT_{item.name.upper()}" for item in fields(Settings)}
    for name in given:
        if name.startswith("ADSCENT_") and name not in known:
            raise SettingInvalid(f"{name} is not a setting; known: {', '.join(sorted(known))}")
    return Settings(**values)  # type: ignore[arg-type]  # each value was parsed to its field's type


def _parsed(name: str, text: str, kind: str) -> object:
    if "Path" in kind:
        return Path(text)
    if kind.startswith("str"):
        return text
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError as error:
        raise SettingInvalid(f"{name}={text!r} is not a number; set it to a {kind}") from error
    if number < 0:
        raise SettingInvalid(f"{name}={text!r} is negative; set it to 0 or more")
    return number
