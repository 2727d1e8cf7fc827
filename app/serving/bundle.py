"""What one request reads: taken once, never changed, swapped by one assignment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from uuid import UUID

from app.serving.live import LiveCatalog
from app.serving.users import UserSides
from models.erasure import Erased, zeroed
from models.features import Encoder, Schema
from models.index import AdIndex
from models.offset import Model


@dataclass(frozen=True, slots=True)
class Bundle:
    """One snapshot, one catalog version, and the schema both are of.

    `index` is the snapshot's own (None for a snapshot without one); searches go through
    `live.searchable`, which always has one.
    """

    snapshot_id: UUID
    schema: Schema
    encoder: Encoder
    model: Model
    index: AdIndex | None
    live: LiveCatalog
    takes_placement: bool = field(init=False)
    users: UserSides = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "takes_placement", self.schema.has("user", "placement"))
        object.__setattr__(self, "users", UserSides(self.encoder, self.model))

    def with_live(self, live: LiveCatalog) -> Bundle:
        """The same snapshot with another catalog version."""
        made = replace(self, live=live)
        object.__setattr__(made, "users", self.users)  # what it remembers still holds
        return made

    def without(self, erased: Erased, encoder: Encoder) -> Bundle:
        """The same snapshot without these values: their vectors are zero, and `encoder`, which
        knows of them, finds none of their rows.
        """
        return replace(self, encoder=encoder, model=zeroed(self.model, erased))
