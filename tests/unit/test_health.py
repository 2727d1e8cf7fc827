"""The figures by which people see how vectors stand to their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import msgspec
import numpy as np

from models.constraints import Radii
from models.cycle import genesis_snapshot, learn
from models.health import vector_health
from models.index import AdSet
from models.schema import Schema
from models.snapshot import Manifest, Snapshot
from models.trainer import TrainerSettings
from models.types import Batch

Draw = Callable[..., Batch]


def _trained(draw: Draw, ads: AdSet, schema: Schema) -> Snapshot:
    start = genesis_snapshot(schema, ads, snapshot_id=UUID(int=1), now_ms=0)
    ids = (UUID(int=2), UUID(int=3))
    settings = TrainerSettings.of(schema)
    return learn(start, draw(400), ads, schema, settings, snapshot_ids=ids, now_ms=1).candidate


def test_every_vector_is_counted_under_its_feature(draw: Draw, ads: AdSet, schema: Schema) -> None:
    """The counts sum to the tables, and the largest ratio is the one that the gate saw."""
    snapshot = _trained(draw, ads, schema)
    health = snapshot.manifest.vectors
    values = len(snapshot.state.user) + len(snapshot.state.ad)
    assert sum(one.values for one in health) == values
    assert {one.feature for one in health} <= {f.full_name for f in (*schema.user, *schema.ad)}
    largest = max(one.ratios[-1] or 0.0 for one in health)
    assert largest == snapshot.manifest.metrics["largest_raw_ratio"]
    assert all(list(one.ratios) == sorted(one.ratios) for one in health)  # type: ignore[type-var]


def test_violations_are_those_above_the_radius(draw: Draw, ads: AdSet, schema: Schema) -> None:
    """With a radius that half of the vectors exceed, half of them are above."""
    state = _trained(draw, ads, schema).state
    middle = float(np.median(state.user.norms()))
    health = vector_health(state, schema, Radii(middle, 1e9))
    above = sum(one.above for one in health)
    assert above == int((state.user.norms() > middle).sum())


def test_what_is_not_finite_is_none(draw: Draw, ads: AdSet, schema: Schema) -> None:
    """A diverged candidate's manifest is JSON all the same."""
    snapshot = _trained(draw, ads, schema)
    latent = snapshot.state.user.latent.copy()
    latent[0] = np.inf
    state = replace(snapshot.state, user=replace(snapshot.state.user, latent=latent))
    health = vector_health(state, schema, Radii(1.0, 1.0))
    assert any(one.ratios[-1] is None for one in health)
    manifest = msgspec.structs.replace(snapshot.manifest, vectors=health)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest
