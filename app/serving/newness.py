"""Which ads of a catalog are new to a model: what it has learned of their own is less than half."""

from __future__ import annotations

import numpy as np

from app.serving.ad_features import own_keys
from app.serving.columns import Columns
from app.serving.eligibility import UNKNOWN
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
