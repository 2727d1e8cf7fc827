"""What one worker holds in memory: every request reads it, the watcher alone replaces its parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.serving.bundle import Bundle
from app.serving.canary import Canary
from app.serving.lease import Lease
from app.serving.pipeline import DecisionQuery
from app.serving.rates import Bucket
from app.serving.reports import Reports
from app.serving.tokens import Tokens
from app.serving.trial import Trials

Scope = Literal["score", "ingest", "admin"]

RECORDED_QUERIES = 16


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who stands behind an API key, and what the key is good for.

    `bucket`: how many requests it may send, None for any number; `expires_s`: when it ends, in
    seconds since 1970, None for never.
    """

    key_id: str
    name: str
    scopes: frozenset[str]
    bucket: Bucket | None = None
    expires_s: float | None = None


@dataclass(slots=True)
class WorkerState:
    """The parts are replaced whole, by one assignment each; a request takes each part once.

    `keys`: holders of the live API keys by the SHA-256 of their secret. `recorded`: recent queries,
    with which the next snapshot is warmed. `snapshot_fault`: why the newest snapshot is not the one
    served. `catalog_version`: the version whose changes hold in this worker, also before there is
    a bundle. `trials`: how often new ads were tried under the present snapshot. `canary`: a second
    bundle, of the same catalog version, that answers a share; `canary_fault`: why it does not.
    `lease`: whether this worker may serve, however long it has not heard of the database;
    `reports`: what all workers have applied.
    """

    bundle: Bundle | None = None
    tokens: Tokens | None = None
    keys: Mapping[bytes, KeyHolder] = field(default_factory=dict)
    keys_loaded: bool = False
    database_reachable: bool = False
    snapshot_fault: str | None = None
    catalog_version: int = 0
    trials: Trials = field(default_factory=Trials)
    canary: Canary | None = None
    canary_fault: str | None = None
    lease: Lease = field(default_factory=Lease)
    reports: Reports = field(default_factory=Reports)
    recorded: deque[DecisionQuery] = field(default_factory=lambda: deque(maxlen=RECORDED_QUERIES))
