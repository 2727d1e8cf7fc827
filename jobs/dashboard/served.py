"""What is served now, in the words that more than one page has for it."""

from __future__ import annotations

from app.storage.snapshots import Serving
from jobs.dashboard.parts import empty, link, pill
from jobs.dashboard.units import short


def nothing_served() -> None:
    """Before the first snapshot."""
    empty("Nothing is served yet. `adscent jobs` makes the first snapshot when it starts.")


def served(serving: Serving) -> None:
    """The snapshot's name, which leads to its page, and whether it is pinned."""
    name = serving.snapshot_id
    link(f"snapshot {short(name)}", f"/snapshots/{name}", "mono")
    if serving.is_pinned:
        pill("pinned", "warn")
