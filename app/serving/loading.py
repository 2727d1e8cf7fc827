"""From a snapshot's folder to what may serve requests, off their path: map, check, warm."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from app.serving import pipeline
from app.serving.bundle import Bundle
from app.serving.live import LiveCatalog
from app.serving.pipeline import DecisionQuery
from app.serving.tokens import Tokens
from models import snapshot
from models.errors import SchemaMismatch
from models.features import Encoder
from models.snapshot import Manifest, Served

_FIRST_QUERY = DecisionQuery(user={}, slots=10)


def served(folder: Path, recorded: Manifest, encoder: Encoder) -> Served:
    """Map a recorded snapshot. Raises `SnapshotCorrupt` and `SchemaMismatch`."""
    found = snapshot.load_served(folder, recorded)
    if found.manifest.schema_hash != encoder.schema.hash:
        raise SchemaMismatch(
            f"snapshot {recorded.id} was trained under the feature schema"
            f" {found.manifest.schema_hash}, this server has {encoder.schema.hash}"
        )
    return found


def bundled(found: Served, live: LiveCatalog, encoder: Encoder) -> Bundle:
    """The bundle of a mapped snapshot and a catalog over it."""
    return Bundle(found.manifest.id, encoder.schema, encoder, found.model, found.index, live)


def warm(
    bundle: Bundle,
    before: Bundle | None,
    queries: Iterable[DecisionQuery],
    tokens: Tokens,
    now_ms: int,
) -> None:
    """Answer recent queries, so that no request has to wait for what only the first one costs.

    What the bundle `before` remembers of users' values this one then knows, too.
    """
    if before is not None:
        bundle.users.warm_as(before.users)
        bundle.live.columns.targets.warm_as(before.live.columns.targets)
    for query in tuple(queries) or (_FIRST_QUERY,):
        pipeline.decide(bundle, query, now_ms, UUID(int=0), tokens)
