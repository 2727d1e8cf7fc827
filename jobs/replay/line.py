"""What learns during a replay: the line of snapshots, and main effects alone beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import UUID

import numpy as np

from models.constraints import project
from models.cycle import Outcome, genesis_snapshot, learn
from models.features import Schema
from models.index import AdSet
from models.offset import genesis, sigmoid
from models.trainer import TrainerSettings, train
from models.types import Batch, Float64s, Ragged, empty_batch, join_ragged


class Line:
    """The line of snapshots as production would make it, in memory.

    The catalog is what the log has shown so far; a snapshot's id is a plain counter, so that a
    replay can be repeated exactly.
    """

    def __init__(self, schema: Schema, settings: TrainerSettings) -> None:
        self.schema, self.settings, self.made = schema, settings, 1
        self.ads = no_ads(len(schema.ad))
        self.incumbent = genesis_snapshot(schema, self.ads, snapshot_id=UUID(int=1), now_ms=0)
        nothing = empty_batch(len(schema.user), len(schema.ad))
        train(self.incumbent.state, nothing, schema, settings)  # compiles, before any clock runs

    def advance(self, batch: Batch, now_ms: int) -> tuple[Outcome, float]:
        """Score and learn one chunk; the incumbent changes unless the gate refuses."""
        self.ads = seen(self.ads, batch)
        ids = UUID(int=self.made + 1), UUID(int=self.made + 2)
        began = time.perf_counter()
        outcome = learn(
            self.incumbent,
            batch,
            self.ads,
            self.schema,
            self.settings,
            snapshot_ids=ids,
            now_ms=now_ms,
        )
        seconds = time.perf_counter() - began
        self.made += 2
        if outcome.candidate.manifest.verdict.result != "refused":
            self.incumbent = outcome.candidate
        return outcome, seconds


class MainEffects:
    """The same trainer without interactions: latents that start at 0 on both sides stay there."""

    def __init__(self, schema: Schema, settings: TrainerSettings) -> None:
        self.schema, self.settings = schema, replace(settings, initial_scale=0.0)
        self.state = genesis(schema, schema.model.base_rate, schema.model.seed)

    def advance(self, batch: Batch) -> Float64s:
        """The pCTR of each event before the chunk is learned, float64 [n]; then learn it."""
        model, _ = project(self.state, self.settings.radii, self.schema)
        predicted = sigmoid(model.score(batch.user, batch.ad))
        self.state = train(self.state, batch, self.schema, self.settings).state
        return predicted


def no_ads(features: int) -> AdSet:
    """A catalog without ads."""
    none = np.zeros(0, np.int64)
    return AdSet(none, none, np.zeros(0, np.float32), Ragged(none, np.zeros(1, np.int64), features))


def seen(ads: AdSet, batch: Batch) -> AdSet:
    """The catalog after a chunk: each ad with the features it last had, all bids alike."""
    ids = np.concatenate((ads.ad_ids, batch.ad_id))
    newest, first = np.unique(ids[::-1], return_index=True)
    features = join_ragged(ads.features, batch.ad).take(len(ids) - 1 - first)
    return AdSet(newest, np.zeros_like(newest), np.zeros(len(newest), np.float32), features)
