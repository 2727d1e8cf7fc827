"""The user's half of a score, and where the vectors of recent values are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from app.serving.retrieval import UserSide
from models.features import Encoder
from models.offset import Model
from models.types import Encoded, FeatureValue

_REMEMBERED = 16_384
"""Values whose rows are remembered: at most 2 MB of a worker's memory."""


class UserSides:
    """Users under one snapshot. Safe to share between threads.

    A hash table of the values asked for last saves most requests the search among all values.
    """

    def __init__(self, encoder: Encoder, model: Model) -> None:
        self._encoder, self._model = encoder, model
        self._rows: dict[int, int] = {}

    def of(self, values: Mapping[str, FeatureValue]) -> UserSide:
        """One user's half. Raises `FeatureUnknown` and `FeatureValueInvalid`."""
        return self.of_hashes(*self._encoder.user_hashes(values))

    def encoded(self, values: Mapping[str, FeatureValue]) -> tuple[Encoded, UserSide]:
        """The same with the encoded values, which a token carries."""
        hashes, counts = self._encoder.user_hashes(values)
        return self._encoder.encoded(hashes, counts), self.of_hashes(hashes, counts)

    def warm_as(self, other: UserSides) -> None:
        """Look up the values that the other was asked for, under this snapshot."""
        self._learned(list(other._rows))

    def of_hashes(self, hashes: list[int], counts: list[int]) -> UserSide:
        """One user's half from its value hashes, so many of each feature."""
        known = self._rows
        try:
            rows = [known[key] for key in hashes]
        except KeyError:
            rows = self._learned(hashes)
        latent, main = self._model.user_vector_at(rows, counts)
        return UserSide(latent, self._model.bias + main)

    def _learned(self, hashes: list[int]) -> list[int]:
        rows: list[int] = self._model.user_rows(np.array(hashes, np.int64)).tolist()
        if len(self._rows) > _REMEMBERED:
            self._rows = {}
        self._rows.update(zip(hashes, rows, strict=True))
        return rows
