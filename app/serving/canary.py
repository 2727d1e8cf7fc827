"""A second bundle that answers a share of the traffic, and who gets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from app.serving.bundle import Bundle
from app.serving.trial import Trials

_ALL = 1 << 64
_SALT = blake2b.SALT_SIZE


@dataclass(frozen=True, slots=True)
class Canary:
    """The bundle of a canary; `share` of all keys get it, the same ones on every worker.

    `comparison_id` salts the draw, so the next canary has other users; and the draw of exploration,
    which is of the same decision id, is independent of this one.
    """

    comparison_id: int
    share: float
    bundle: Bundle
    trials: Trials = field(default_factory=Trials)

    def takes(self, user_key: str, decision_id: UUID) -> bool:
        """Whether it answers: by the caller's key of the user, by the decision without one."""
        key = user_key.encode() if user_key else decision_id.bytes
        drawn = blake2b(key, digest_size=8, salt=self.comparison_id.to_bytes(_SALT)).digest()
        return int.from_bytes(drawn) < self.share * _ALL
