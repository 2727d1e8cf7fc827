"""Which ads of a catalog are new to a model: what it has learned of their own is less than half."""

from __future__ import annotations

import numpy as np

from app.serving.columns import Columns
from app.serving.eligibility import UNKNOWN
from app.serving.items import Items
from models.exploration import is_new
from models.features import Schema
from models.offset import Model
from models.types import Bools, Int64s

OWN_FEATURE = "creative"
"""The ad feature that no two ads share."""


def new_rows(columns: Columns, rows: Int64s, model: Model, schema: Schema) -> Bools:
    """Whether each of some rows (int64 [m]) is a CPC ad that is new to the model: bool [m].

    Without the feature `ad.creative` no ad is. A CPM ad's worth does not depend on the model.
    """
    names = [feature.name for feature in schema.ad]
    found: Bools = columns.per_click[rows] & (columns.state[rows] != UNKNOWN)
    if OWN_FEATURE not in names:
        return np.zeros(len(rows), np.bool_)
    own = names.index(OWN_FEATURE)
    some = np.flatnonzero(found)
    found[some] = is_new(model, own_keys(columns.encoded, rows[some], len(names), own), own)
    return found


def own_keys(encoded: Items, rows: Int64s, features: int, own: int) -> Int64s:
    """The hash of the first value of feature `own` in each of some rows: int64 [m].

    An item has a count byte for each of so many features, then the hashes (see `Columns`).
    """
    data = encoded.base
    if encoded.recent:
        data = np.concatenate((data, np.frombuffer(encoded.recent, np.uint8)))
    starts = encoded.starts[rows]
    before = np.zeros(len(rows), np.int64)
    for feature in range(own):
        before += data[starts + feature]
    at = starts + features + 8 * before
    keys: Int64s = data[at[:, None] + np.arange(8)].view("<i8")[:, 0]
    return keys
