"""A whole chunk scored by a served model: `Model.score`, compiled, for the training process.

The values of a chunk repeat: each different one is looked up in the model once, and the loop runs
over their vectors alone, whatever the size of the model. Scores differ from those of `Model.score`
by rounding only.
"""

from __future__ import annotations

import numpy as np

from models.kernels import Parameters, Values, check, compiled
from models.offset import Model, found
from models.trainer import TrainerSettings, rule_of
from models.types import Batch, Float32s, Int64s, Ragged


def chunk_scores(model: Model, chunk: Batch, settings: TrainerSettings) -> Float32s:
    """s of each event, float32 [n], as `Model.score`; pCTR is σ(s).

    `settings`: those that the chunk is learned with, so that one compilation serves both. Raises
    `InvalidInput` for a broken chunk.
    """
    shape = settings.shape
    user, user_values = _numbered(chunk.user, model.user_keys, model.user_latent, model.user_main)
    ad, ad_values = _numbered(chunk.ad, model.ad_keys, model.ad_latent, model.ad_main)
    sides = (user, ad, user_values, ad_values)
    check(shape, *sides, np.ascontiguousarray(chunk.label, np.float32))
    scores = np.zeros((len(chunk), 2), np.float32)
    compiled.score(shape, rule_of(settings), *sides, model.bias, scores)
    return np.asarray(scores[:, 0] + scores[:, 1])


def _numbered(
    block: Ragged, keys: Int64s, latent: Float32s, main: Float32s
) -> tuple[Parameters, Values]:
    """A row for each different value, in order of appearance: zeros for one that is unseen."""
    rows, first = compiled.resolve(np.zeros(0, np.int64), block.ids)
    places, is_seen = found(keys, block.ids[first])
    own = np.zeros((len(first), latent.shape[1]), np.float32)
    own_main = np.zeros(len(first), np.float32)
    own[is_seen], own_main[is_seen] = latent[places[is_seen]], main[places[is_seen]]
    return _parameters(own, own_main, block.features), Values(rows, block.ptr)


def _parameters(latent: Float32s, main: Float32s, features: int) -> Parameters:
    """Parameters that are scored only, so accumulators are never read: others stand in for them."""
    return Parameters(
        latent=latent,
        main=main,
        latent_evidence=latent,
        main_evidence=main,
        dual=main,
        feature=np.zeros(len(main), np.uint8),
        latent_prior=np.zeros((features, latent.shape[1]), np.float32),
        main_prior=np.zeros(features, np.float32),
    )
