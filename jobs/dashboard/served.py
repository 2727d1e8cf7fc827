"""What is served now, in the words that more than one page has for it."""

from __future__ import annotations

from uuid import UUID

from jobs.dashboard.parts import empty, link, pill
from jobs.dashboard.units import short


def nothing_served() -> None:
    """Before the first snapshot."""
    empty("Nothing is served yet. `adscent jobs` makes the first snapshot when it starts.")


def served(snapshot_id: UUID, is_pinned: bool) -> None:
    """The snapshot's name, which leads to its page, and whether it is pinned."""
    link(f"snapshot {short(snapshot_id)}", f"/snapshots/{snapshot_id}", "mono")
    if is_pinned:
        pill("pinned", "warn")
