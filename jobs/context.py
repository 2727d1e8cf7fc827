"""What every scheduled job is given: made once, in `jobs.__main__`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from prometheus_client import Counter

from app.settings import Settings
from app.storage.engine import Database
from models.schema import Schema


@dataclass(frozen=True, slots=True)
class Context:
    """`clock` gives ms since 1970; `training` lets one training run at a time; `failures` counts
    jobs that ended with an error.
    """

    settings: Settings
    database: Database
    schema: Schema
    store: Path
    clock: Callable[[], int]
    log: structlog.stdlib.BoundLogger
    failures: Counter
    training: asyncio.Lock = field(default_factory=asyncio.Lock)
